import VMMBase
import VMMHost

/// Device type numbers (VirtIO 1.3, chapter 5).
package enum VirtIODeviceType: UInt16, Sendable {
    case network = 1
    case block = 2
    case console = 3
    case entropy = 4
    case vsock = 19
    case watchdog = 35
}

/// A virtio device as its specification has it: no transport, interrupt, thread or clock. All
/// calls come on one thread, the loop that its worker runs on. A device without queues has no
/// work in flight, so pause, snapshot, reset and unplug are all `quiesce`.
package protocol VirtIODevice: AnyObject {
    /// The name in logs and metrics, unique in the machine.
    var id: String { get }
    var deviceType: VirtIODeviceType { get }
    /// The largest size of each queue; their count is the number of queues.
    var queueSizes: [UInt16] { get }
    /// How many interrupts its queues have on a bus with many. One for all makes a guest cheaper
    /// whose queues one CPU serves anyway: what comes at once interrupts it once.
    var queueInterruptCount: Int { get }
    /// Device features; those of the ring are added by the transport.
    var offeredFeatures: UInt64 { get }
    /// The device-specific configuration space.
    var configuration: [UInt8] { get }
    /// Which bytes of it the driver may write.
    var writableConfiguration: Range<Int> { get }

    /// Takes the queues (nil where the driver left one unused) and the negotiated features.
    func activate(_ queues: [VirtQueue?], features: UInt64) throws
    /// The driver rang the bell of one queue.
    func service(queue index: Int) throws(GuestFault)
    /// Gives the queues up, with nothing in flight any more. What a rate limit holds back is never
    /// done: a driver must not get it past the limit by a reset.
    func quiesce()

    /// Answers all that is in flight, and keeps the queues. Nobody serves them in the meantime.
    func drain()

    /// Is about to be served again after a `drain`: to the guest no time has passed.
    func resumed()

    /// Takes one queue more: the driver of the active device has set it up, perhaps anew.
    func activate(_ queue: VirtQueue, at index: Int) throws
    /// Gives one queue up, with nothing of it in flight any more. The others go on.
    func quiesce(queue index: Int)

    /// The device joins the machine that it was made for: what its host side needs of the loop it
    /// takes now, while that stands still or does not run yet. `detach` or `finish` follows.
    func attach() throws
    /// The device leaves a machine that goes on, and has no queues: it lets go of the loop, on that
    /// loop's thread or while it stands still. `finish` follows.
    func detach()

    /// The machine has ended for good, or the device has left it, and has no queues: what is not
    /// written down yet is written now. After the loop has ended, or after `detach`.
    func finish()

    /// The queues of an active device that have threads of their own; the worker serves the rest
    /// by the calls above. It takes the threads' hands off their queues before `quiesce`.
    var assignments: [QueueAssignment] { get }

    /// Host descriptors whose readiness the device wants to hear of while it is active.
    var wakeSources: [FileDescriptor] { get }
    /// The rings of requests behind some of `wakeSources`: the loop may wait in one.
    var rings: [IORing] { get }
    /// One of `wakeSources` became readable. Take all there is: edge-triggered.
    func wake(source index: Int) throws(GuestFault)

    /// The driver wrote to `writableConfiguration`; `bytes` is the whole space as it is now.
    func configurationWritten(_ bytes: [UInt8])
    /// What may be asked of the device from any thread.
    var handle: (any DeviceHandle)? { get }
    /// Set by the worker: to be called when `configuration` has changed by itself.
    var configurationChanged: (() -> Void)? { get set }
}

extension VirtIODevice {
    package var queueInterruptCount: Int { queueSizes.count }
    package var writableConfiguration: Range<Int> { 0..<0 }
    package var wakeSources: [FileDescriptor] { [] }
    package var rings: [IORing] { [] }
    package func wake(source index: Int) throws(GuestFault) {}
    package func attach() throws {}
    package func detach() {}
    package func finish() {}
    package func drain() {}
    package func resumed() {}
    package var handle: (any DeviceHandle)? { nil }
    package var assignments: [QueueAssignment] { [] }
    package func configurationWritten(_ bytes: [UInt8]) {}
}
