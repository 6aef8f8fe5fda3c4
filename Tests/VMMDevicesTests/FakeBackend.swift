import VMMHost
import VMMNetwork

/// A wire with frames that wait to be received, and those that were sent.
final class FakeBackend: FrameBackend {
    private let event: EventFD
    private var waiting: [[UInt8]] = []
    private(set) var sent: [[UInt8]] = []
    private(set) var rooms: [UInt64] = []
    private(set) var offloads: [TapInterface.Offloads] = []
    private(set) var isEnabled = true

    init(_ frames: [[UInt8]] = []) throws {
        event = try EventFD()
        departure = try EventFD()
        arrive(frames)
    }

    func arrive(_ frames: [[UInt8]]) {
        waiting += frames
        if !frames.isEmpty { event.signal() }
    }

    var descriptor: FileDescriptor? { event.descriptor }
    var waitingCount: Int { waiting.count }

    /// Frames that are taken until `makeRoom`; nil: all.
    var roomCount: Int?
    private let departure: EventFD
    var room: FileDescriptor? { departure.descriptor }

    func makeRoom(_ count: Int) {
        roomCount = count
        departure.signal()
    }

    func send(_ frame: GuestVector) -> Bool {
        if let roomCount {
            if roomCount == 0 { return false }
            self.roomCount = roomCount - 1
        }
        var bytes: [UInt8] = []
        frame.copyOut(into: &bytes)
        sent.append(bytes)
        return true
    }

    func receive(into room: GuestVector) -> Int? {
        rooms.append(room.byteCount)
        event.clear()
        guard !waiting.isEmpty, !room.isEmpty else { return nil }
        return room.copyIn(waiting.removeFirst())
    }

    func setOffloads(_ offloads: TapInterface.Offloads) { self.offloads.append(offloads) }

    func setEnabled(_ isEnabled: Bool) { self.isEnabled = isEnabled }

    private(set) var flushCount = 0
    func flush() { flushCount += 1 }
    var offersOffloads = true
    var isLinkUp = true
    var linkChanged: (() -> Void)?
    private(set) var isFinished = false
    func finish() { isFinished = true }
}
