import CVMMLinux
import Glibc
import VMMBase

/// The host's own clocks.
package struct SystemClock: HostClock {
    package init() {}

    package func monotonicNanoseconds() -> UInt64 { Self.read(CLOCK_MONOTONIC) }
    package func realtimeNanoseconds() -> UInt64 { Self.read(CLOCK_REALTIME) }

    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        unsafe clock_gettime(clock, &time)
        return UInt64(clamping: time.tv_sec) &* 1_000_000_000 &+ UInt64(clamping: time.tv_nsec)
    }
}
