import VMMHost

/// Where a network device's frames go to and come from. Frames carry the 12-byte header of
/// virtio-net (VirtIO 1.3, 5.1.6) in front. One thread: the device's loop.
package protocol FrameBackend: AnyObject {
    /// Ready when a frame waits; nil for a backend that never has any.
    var descriptor: FileDescriptor? { get }
    /// Sends one frame; a backend that cannot take it drops it, as a wire would.
    func send(_ frame: GuestVector)
    /// Receives one frame into `room`; nil when none waits. Returns the frame's bytes with header.
    func receive(into room: GuestVector) -> Int?
    /// What the guest's driver can take in received frames.
    func setOffloads(_ offloads: TapInterface.Offloads)
}

/// Frames through a tap interface of the host.
package final class TapBackend: FrameBackend {
    private let tap: TapInterface
    package var descriptor: FileDescriptor? { tap.descriptor }
    package var name: String { tap.name }

    package init(_ tap: TapInterface) {
        self.tap = tap
    }

    package func send(_ frame: GuestVector) {
        // Whatever fails here (link down, queue full), a wire would have lost the frame too.
        _ = tap.descriptor.write(frame)
    }

    package func receive(into room: GuestVector) -> Int? {
        guard case .moved(let count) = tap.descriptor.read(into: room) else { return nil }
        return count
    }

    package func setOffloads(_ offloads: TapInterface.Offloads) {
        // A host kernel that lacks one of them still hands over frames that are complete.
        try? tap.setOffloads(offloads)
    }
}
