import CVMMLinux
import Glibc
import VMMBase

/// Writes log lines to a descriptor, in the form of Cloud Hypervisor's:
/// `program: 0.001234s: <thread> LEVEL -- message`.
package struct LogSink: Sendable {
    private let descriptor: FileDescriptor
    private let program: String
    private let clock: any HostClock
    private let start: UInt64

    package init(descriptor: FileDescriptor, program: String, clock: any HostClock) {
        self.descriptor = descriptor
        self.program = program
        self.clock = clock
        start = clock.monotonicNanoseconds()
    }

    /// Makes this the process's log.
    package func start(_ level: LogLevel) {
        Log.start(level: level) { [self] level, message in
            let microseconds = (clock.monotonicNanoseconds() &- start) / 1000
            let fraction = String(microseconds % 1_000_000)
            let padding = String(repeating: "0", count: 6 - fraction.utf8.count)
            descriptor.writeAll(
                "\(program): \(microseconds / 1_000_000).\(padding)\(fraction)s: "
                    + "<\(Self.threadName)> \(level.name) -- \(message)\n")
        }
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
