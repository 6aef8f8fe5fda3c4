import VMMHost

/// A place where the I/O thread stands still while the machine is paused. The thread stays the
/// same, for the kernel may know it by its work; what is posted to it waits.
final class Parking: Sendable {
    private let arrival: EventFD
    private let departure: EventFD

    /// Returns when the loop's thread stands still, after it has done `before`; it does `after`
    /// when it is released. Fails when that thread does nothing any more.
    init(
        _ loop: EventLoop, before: @escaping @Sendable () -> Void = {},
        after: @escaping @Sendable () -> Void = {}
    ) throws(HostError) {
        let arrival = try EventFD()
        let departure = try EventFD()
        self.arrival = arrival
        self.departure = departure
        let isTaken = loop.post {
            before()
            arrival.signal()
            Self.wait(departure)
            after()
        }
        if isTaken { Self.wait(arrival) }
        guard !loop.hasFailed else {
            release()
            throw HostError("halt the I/O thread, which has ended", code: HostError.ioCode)
        }
    }

    /// Lets the thread go on.
    func release() { departure.signal() }

    private static func wait(_ event: EventFD) {
        while !event.clear() {
            _ = event.descriptor.isReady(.readable, waitingMilliseconds: -1)
        }
    }
}
