import VMMBase
import VMMHost
import VMMVirtIO

/// A watchdog as Cloud Hypervisor has it: the type number is VirtIO's, the protocol is not
/// (`reference/cloud-hypervisor.md`, device 35). The driver offers a buffer again and again, and
/// gets it back with a 1 in its first byte. Once it has begun, it must not rest for 20 seconds.
package final class VirtIOWatchdog: VirtIODevice {
    private static let queueSize: UInt16 = 8
    /// How long the guest may be silent, in nanoseconds.
    static let patience: UInt64 = 20_000_000_000

    package let id: String
    package let deviceType = VirtIODeviceType.watchdog
    package let queueSizes = [queueSize]
    package let offeredFeatures: UInt64 = 0
    package let configuration: [UInt8] = []
    package var configurationChanged: (() -> Void)?

    private let clock: any HostClock
    private let timer: Timer
    private let expired: @Sendable () -> Void
    private var queue: VirtQueue?
    private var chain: DescriptorChain?
    /// When the driver was heard last; nil until it begins.
    private var lastSign: UInt64?

    /// `expired` is called on the device's loop, once for each time that the guest falls silent.
    package init(
        id: String, clock: any HostClock, expired: @escaping @Sendable () -> Void
    ) throws(HostError) {
        self.id = id
        self.clock = clock
        self.expired = expired
        timer = try Timer()
    }

    package func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        if let queue = queues.first ?? nil { try activate(queue, at: 0) }
    }

    package func activate(_ queue: VirtQueue, at index: Int) throws {
        chain = try queue.makeChains(1).first
        self.queue = queue
    }

    package func quiesce(queue index: Int) { quiesce() }

    /// Who resets the device may take their time.
    package func quiesce() {
        queue = nil
        chain = nil
        lastSign = nil
    }

    /// To a guest that stood still no time has passed.
    package func resumed() {
        if lastSign != nil { noteSign() }
    }

    package func service(queue index: Int) throws(GuestFault) {
        guard index == 0, let queue, let chain else { return }
        queue.suppressDoorbell()
        var rest = Int(queue.size)
        repeat {
            while rest > 0, try queue.pop(into: chain) {
                rest -= 1
                let isStored = chain.writable.store(1, at: 0)
                queue.push(chain, written: isStored ? 1 : 0)
            }
            if rest == 0 { queue.serviceAgain() }
        } while rest > 0 && queue.armDoorbell()
        if rest < Int(queue.size) { noteSign() }
        queue.notify()
    }

    private func noteSign() {
        lastSign = clock.monotonicNanoseconds()
        timer.set(nanoseconds: Self.patience)
    }

    package var wakeSources: [FileDescriptor] { [timer.descriptor] }

    package func wake(source index: Int) throws(GuestFault) {
        timer.clear()
        guard let lastSign else { return }
        let silence = clock.monotonicNanoseconds() &- lastSign
        guard silence >= Self.patience else {
            return timer.set(nanoseconds: Self.patience - silence)
        }
        self.lastSign = nil
        Log.warning("\(id): the guest has been silent for \(silence / 1_000_000_000) s")
        expired()
    }
}
