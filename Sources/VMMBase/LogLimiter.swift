import Synchronization

/// Lets at most `burst` lines through in each window of time, because a guest decides how often
/// it provokes them. One limiter per source of lines; any thread.
package final class LogLimiter: Sendable {
    private struct Window {
        var start: UInt64 = 0
        var used = 0
    }

    private let clock: any HostClock
    private let burst: Int
    /// Length of a window in nanoseconds.
    private let period: UInt64
    private let window = Mutex(Window())

    /// Ten lines in five seconds tell what goes on without filling a disk.
    package init(clock: any HostClock, burst: Int = 10, periodNanoseconds: UInt64 = 5_000_000_000) {
        self.clock = clock
        self.burst = burst
        self.period = periodNanoseconds
    }

    /// Logs a warning unless this window's lines are used up.
    package func warn(_ message: @autoclosure () -> String) { write(.warning, message) }

    /// As `warn`, for what is normal and may come often.
    package func info(_ message: @autoclosure () -> String) { write(.info, message) }
    package func debug(_ message: @autoclosure () -> String) { write(.debug, message) }

    private func write(_ level: LogLevel, _ message: () -> String) {
        // What nobody sees takes no line from what is seen.
        guard Log.isEnabled(level), admitsLine() else { return }
        Log.write(level, message)
    }

    /// Whether one line more may go now; it counts.
    func admitsLine() -> Bool {
        let now = clock.monotonicNanoseconds()
        return window.withLock { window in
            if now &- window.start >= period { window = Window(start: now) }
            window.used = min(window.used + 1, burst + 1)
            return window.used <= burst
        }
    }
}
