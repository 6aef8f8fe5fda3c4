import CVMMLinux
import Glibc

/// A one-shot timer that a loop can wait for: its descriptor becomes readable when it runs out.
package final class Timer: Sendable {
    package let descriptor: FileDescriptor

    package init() throws(HostError) {
        let raw = timerfd_create(CLOCK_MONOTONIC, Int32(TFD_CLOEXEC) | Int32(TFD_NONBLOCK))
        guard raw >= 0 else { throw .last("create a timer") }
        descriptor = FileDescriptor(owning: raw)
    }

    /// Forgets that it ran out.
    package func clear() {
        var count: UInt64 = 0
        // SAFETY: eight bytes into a variable of eight; nothing to read is no error here.
        unsafe _ = read(descriptor.rawValue, &count, 8)
    }

    /// Runs out `nanoseconds` from now, at least 1; replaces an earlier setting.
    package func set(nanoseconds: UInt64) {
        let count = max(1, nanoseconds)
        var value = itimerspec()
        value.it_value.tv_sec = Int(clamping: count / 1_000_000_000)
        value.it_value.tv_nsec = Int(count % 1_000_000_000)
        // SAFETY: the value lives for the length of the call; nobody wants the old one. Setting
        // also resets the readiness that an earlier end left.
        unsafe _ = timerfd_settime(descriptor.rawValue, 0, &value, nil)
    }
}
