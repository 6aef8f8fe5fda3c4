import Synchronization
import VMMBase

/// A clock that stands still until a test moves it. Any thread.
package final class ManualClock: HostClock {
    private struct Times {
        var monotonic: UInt64
        var realtime: UInt64
    }

    private let times: Mutex<Times>

    /// Both times in nanoseconds.
    package init(monotonic: UInt64 = 0, realtime: UInt64 = 0) {
        times = Mutex(Times(monotonic: monotonic, realtime: realtime))
    }

    package func monotonicNanoseconds() -> UInt64 { times.withLock { $0.monotonic } }
    package func realtimeNanoseconds() -> UInt64 { times.withLock { $0.realtime } }

    /// Moves both times on.
    package func advance(nanoseconds: UInt64) {
        times.withLock { times in
            times.monotonic &+= nanoseconds
            times.realtime &+= nanoseconds
        }
    }

    /// Sets the time of day, in seconds since 1970-01-01 00:00 UTC.
    package func setRealtime(seconds: UInt64) {
        times.withLock { $0.realtime = seconds &* 1_000_000_000 }
    }
}
