import VMMBase
import VMMHost

/// Where a network device's frames go to and come from. Frames carry the 12-byte header of
/// virtio-net (VirtIO 1.3, 5.1.6) in front. One thread: the device's loop.
package protocol FrameBackend: AnyObject {
    /// Ready when a frame waits; nil for a backend that never has any.
    var descriptor: FileDescriptor? { get }
    /// Sends one frame; a backend that cannot take it drops it, as a wire would. It may keep the
    /// frame until `flush`, and take bytes off the vector. False, and the frame is as it was: there
    /// is no room for the moment, and it is to be sent again when `room` is ready.
    func send(_ frame: GuestVector) -> Bool
    /// Ready when a frame that found no room may come again; nil for a backend that takes each.
    var room: FileDescriptor? { get }
    /// Sends what `send` kept; called when no more frames are at hand.
    func flush()
    /// Receives one frame into `room`; nil when none waits. Returns the frame's bytes with header.
    func receive(into room: GuestVector) -> Int?
    /// What the guest's driver can take in received frames.
    func setOffloads(_ offloads: TapInterface.Offloads)
    /// Whether the host shall bring frames to this one of several queues.
    func setEnabled(_ isEnabled: Bool)
    /// Frames may be left unfinished in either direction; else no offload may be offered.
    var offersOffloads: Bool { get }
    /// What it could not take or deliver.
    var losses: FrameLosses { get }
    /// There is somebody at the far end.
    var isLinkUp: Bool { get }
    /// Set by the device: to be called when `isLinkUp` has changed.
    var linkChanged: (() -> Void)? { get set }
    /// Begins to serve on the loop that the backend was made for. On a thread that does not end
    /// before it.
    func attach() throws
    /// Lets go of the loop that the backend was made for, which goes on.
    func detach()
    /// The machine has ended for good, or the device has left it: gives up what others can see of
    /// the backend.
    func finish()
}

/// How many frames a backend has dropped, in either direction: written by its thread alone, read by
/// any.
package final class FrameLosses: Sendable {
    private let counter = Counter()
    /// Of a wire that loses nothing.
    package static let none = FrameLosses()

    package init() {}

    package var count: UInt64 { counter.current }
    func add() { counter.add() }
}

// What suits a wire that is always there and takes each frame at once.
extension FrameBackend {
    package var losses: FrameLosses { .none }
    package var room: FileDescriptor? { nil }
    package func flush() {}
    package func setEnabled(_ isEnabled: Bool) {}
    package func setOffloads(_ offloads: TapInterface.Offloads) {}
    package var offersOffloads: Bool { true }
    package var isLinkUp: Bool { true }
    package var linkChanged: (() -> Void)? {
        get { nil }
        set {}
    }
    package func attach() throws {}
    package func detach() {}
    package func finish() {}
}

/// Frames through one queue of a tap interface of the host.
package final class TapBackend: FrameBackend {
    private let tap: TapInterface
    private let queue: FileDescriptor
    private var isEnabled = true
    private var offloads: TapInterface.Offloads?
    package let losses = FrameLosses()
    package var descriptor: FileDescriptor? { queue }

    /// One backend for each queue of the tap.
    package static func all(_ tap: TapInterface) -> [TapBackend] {
        tap.queues.map { TapBackend(tap, $0) }
    }

    private init(_ tap: TapInterface, _ queue: FileDescriptor) {
        self.tap = tap
        self.queue = queue
    }

    package func send(_ frame: GuestVector) -> Bool {
        // Whatever fails here (link down, queue full), a wire would have lost the frame too.
        if case .moved = queue.write(frame) { return true }
        losses.add()
        return true
    }

    package func receive(into room: GuestVector) -> Int? {
        guard case .moved(let count) = queue.read(into: room) else { return nil }
        return count
    }

    package func setOffloads(_ offloads: TapInterface.Offloads) {
        guard offloads != self.offloads else { return }
        self.offloads = offloads
        // A host kernel that lacks one of them still hands over frames that are complete.
        try? tap.setOffloads(offloads)
    }

    package func setEnabled(_ isEnabled: Bool) {
        guard isEnabled != self.isEnabled else { return }
        // Where that fails frames go on to come to a queue that the driver does not look into yet.
        if (try? tap.setEnabled(isEnabled, queue)) != nil { self.isEnabled = isEnabled }
    }
}
