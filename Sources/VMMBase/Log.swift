import Synchronization

/// How serious a log line is. `-v` on the command line raises the level that is shown.
package enum LogLevel: UInt8, Comparable, Sendable {
    case error, warning, info, debug, trace

    package var name: String {
        switch self {
        case .error: "ERROR"
        case .warning: "WARN"
        case .info: "INFO"
        case .debug: "DEBUG"
        case .trace: "TRACE"
        }
    }

    package static func < (left: LogLevel, right: LogLevel) -> Bool {
        left.rawValue < right.rawValue
    }
}

/// The process's log. Any thread may write; the sink gets whole lines.
package enum Log {
    private static let threshold = Atomic<UInt8>(LogLevel.warning.rawValue)
    private static let sink = Mutex<(@Sendable (LogLevel, String) -> Void)?>(nil)

    /// Sets what is shown and where it goes. Called once at start, before other threads exist.
    package static func start(
        level: LogLevel, sink newSink: @escaping @Sendable (LogLevel, String) -> Void
    ) {
        threshold.store(level.rawValue, ordering: .relaxed)
        sink.withLock { $0 = newSink }
    }

    package static func isEnabled(_ level: LogLevel) -> Bool {
        level.rawValue <= threshold.load(ordering: .relaxed)
    }

    package static func error(_ message: @autoclosure () -> String) { write(.error, message) }
    package static func warning(_ message: @autoclosure () -> String) { write(.warning, message) }
    package static func info(_ message: @autoclosure () -> String) { write(.info, message) }
    package static func debug(_ message: @autoclosure () -> String) { write(.debug, message) }

    package static func trace(_ message: @autoclosure () -> String) { write(.trace, message) }

    static func write(_ level: LogLevel, _ message: () -> String) {
        guard isEnabled(level) else { return }
        let target = sink.withLock { $0 }
        target?(level, message())
    }
}
