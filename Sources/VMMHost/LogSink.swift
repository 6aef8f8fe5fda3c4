import CVMMLinux
import Glibc
import Synchronization
import VMMBase

/// Writes log lines to a descriptor, in the form of Cloud Hypervisor's:
/// `program: 0.001234s: <thread> LEVEL -- message`. A guest causes lines on threads that serve it:
/// a reader who stands still costs them `patience` once, and then lines.
package final class LogSink: Sendable {
    /// In milliseconds: a reader on a busy host is not late by that.
    private static let patience: Int32 = 250

    private let stream: ByteStream?
    /// How many lines the reader did not take since the last one that it took.
    private let lost = Mutex(0)
    private let program: String
    private let clock: any HostClock
    private let start: UInt64

    /// Without a descriptor that can be written to, nothing is logged.
    package init(descriptor: FileDescriptor, program: String, clock: any HostClock) {
        stream = try? ByteStream.shared(descriptor, .writeOnly)
        self.program = program
        self.clock = clock
        start = clock.monotonicNanoseconds()
    }

    /// Makes this the process's log.
    package func start(_ level: LogLevel) {
        Log.start(level: level) { [self] level, message in write(level, message) }
    }

    /// Writes one line. Any thread.
    package func write(_ level: LogLevel, _ message: String) {
        lost.withLock { lost in
            let isLate = lost > 0
            if isLate {
                guard put(line(.warning, "\(lost) lines of the log were lost"), 0) else {
                    lost += 1
                    return
                }
                lost = 0
            }
            if !put(line(level, message), isLate ? 0 : Self.patience) { lost = 1 }
        }
    }

    private func line(_ level: LogLevel, _ message: String) -> String {
        let microseconds = (clock.monotonicNanoseconds() &- start) / 1000
        let fraction = String(microseconds % 1_000_000)
        let padding = String(repeating: "0", count: 6 - fraction.utf8.count)
        return "\(program): \(microseconds / 1_000_000).\(padding)\(fraction)s: "
            + "<\(Self.threadName)> \(level.name) -- \(message)\n"
    }

    /// False when the reader did not take the whole line, each part of it within `patience`.
    private func put(_ line: String, _ patience: Int32) -> Bool {
        guard let stream else { return true }
        let bytes = Array(line.utf8)
        var sent = 0
        while sent < bytes.count {
            switch stream.write(bytes, from: sent) {
            case .moved(let count): sent += count
            case .wouldBlock:
                guard stream.descriptor.isReady(.writable, waitingMilliseconds: patience) else {
                    return false
                }
            // Nobody reads any more, or the disk is full: nobody is told later, either.
            case .endOfFile, .failed: return true
            }
        }
        return true
    }

    private static var threadName: String {
        var bytes = [CChar](repeating: 0, count: 16)
        // SAFETY: the kernel writes at most 16 bytes, the end included.
        guard unsafe vmm_get_thread_name(&bytes) == 0 else { return "?" }
        return String(
            decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// Ends the process at once, without running what other threads still hold.
package func terminateProcess(_ status: Int32) -> Never {
    exit(status)
}
