import CVMMLinux
import Glibc
import VMMBase

/// A kernel counter for which threads wait one by one: each signal lets one of them go on. Waiting
/// is a read and nothing else, which every thread's sandbox allows. Any thread.
package final class Semaphore: Sendable {
    private let descriptor: FileDescriptor

    package init() throws(HostError) {
        descriptor = try EventFD.make(EFD_SEMAPHORE)
    }

    package func signal() {
        // Fails only when the counter is full, which takes 2^64 signals.
        _ = eventfd_write(descriptor.rawValue, 1)
    }

    /// Returns when a signal has come for this thread. Unix signals do not end the wait.
    package func wait() {
        var value: eventfd_t = 0
        while unsafe eventfd_read(descriptor.rawValue, &value) != 0, errno == EINTR {}
    }
}
