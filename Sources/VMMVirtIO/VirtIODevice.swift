import VMMBase
import VMMHost

/// Device type numbers (VirtIO 1.3, chapter 5).
package enum VirtIODeviceType: UInt16, Sendable {
    case network = 1
    case block = 2
    case console = 3
    case entropy = 4
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
    /// Gives the queues up, with nothing in flight any more.
    func quiesce()

    /// The machine has ended for good, and the device has no queues: what is not written down yet
    /// is written now. After the loop has ended.
    func finish()

    /// The queues of an active device that have threads of their own; the worker serves the rest
    /// by the calls above. It takes the threads' hands off their queues before `quiesce`.
    var assignments: [QueueAssignment] { get }

    /// Host descriptors whose readiness the device wants to hear of while it is active.
    var wakeSources: [FileDescriptor] { get }
    /// One of `wakeSources` became readable. Take all there is: edge-triggered.
    func wake(source index: Int) throws(GuestFault)

    /// The driver wrote to `writableConfiguration`; `bytes` is the whole space as it is now.
    func configurationWritten(_ bytes: [UInt8])
    /// Set by the worker: to be called when `configuration` has changed by itself.
    var configurationChanged: (() -> Void)? { get set }
}

extension VirtIODevice {
    package var writableConfiguration: Range<Int> { 0..<0 }
    package var wakeSources: [FileDescriptor] { [] }
    package func wake(source index: Int) throws(GuestFault) {}
    package func finish() {}
    package var assignments: [QueueAssignment] { [] }
    package func configurationWritten(_ bytes: [UInt8]) {}
}
