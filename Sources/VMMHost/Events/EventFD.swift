import CVMMLinux
import Glibc
import VMMBase

/// A kernel counter that one side raises and the other waits for; also what KVM's irqfd and
/// ioeventfd are made of. Any thread.
package final class EventFD: Sendable {
    package let descriptor: FileDescriptor

    package init() throws(HostError) {
        descriptor = try Self.make(EFD_NONBLOCK)
    }

    /// Of the kind that eventfd(2) calls by `flags`.
    static func make(_ flags: Int) throws(HostError) -> FileDescriptor {
        let raw = eventfd(0, Int32(EFD_CLOEXEC | flags))
        guard raw >= 0 else { throw .last("create an eventfd") }
        return FileDescriptor(owning: raw)
    }

    package func signal() {
        // Fails only when the counter is full, and then the other side is woken anyway.
        _ = eventfd_write(descriptor.rawValue, 1)
    }

    /// Signals with the next work that `sink` hands to the kernel.
    package func signal(through sink: any EventSink) {
        sink.raise(descriptor.rawValue, of: self)
    }

    /// Resets the counter; true when it had been raised.
    @discardableResult
    package func clear() -> Bool {
        var value: eventfd_t = 0
        return unsafe eventfd_read(descriptor.rawValue, &value) == 0
    }
}
