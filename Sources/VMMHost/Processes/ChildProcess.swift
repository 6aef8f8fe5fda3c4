import CVMMLinux
import Glibc

/// A program that runs beside us and never outlives us: the kernel kills it with the thread that
/// started it, and we with the object. One thread at a time.
package final class ChildProcess {
    /// How a process ended.
    package enum End: Equatable, Sendable, CustomStringConvertible {
        case exited(Int32)
        case killed(Int32)

        package var description: String {
            switch self {
            case .exited(let status): "it ended with status \(status)"
            case .killed(let signal): "signal \(signal) ended it"
            }
        }
    }

    /// Readable when the process has ended.
    package let descriptor: FileDescriptor
    package let identifier: Int32
    private var end: End?

    /// Starts the program at `path` with our environment. Of our descriptors it gets those of
    /// `keeping`, under their numbers, and `output` as standard output and error; its input is
    /// empty. Call it on a thread that lives as long as the child shall.
    package init(
        _ path: String, _ arguments: [String], keeping: [FileDescriptor] = [],
        output: FileDescriptor
    ) throws(HostError) {
        let null = try FileDescriptor.open("/dev/null", [.readWrite])
        // Until it executes, the child needs a stack for a few system calls.
        let stack = try Mapping(anonymous: 64 << 10)
        var words = unsafe ([path] + arguments).map { unsafe strdup($0) }
        unsafe words.append(nil)
        defer { unsafe words.forEach { unsafe free($0) } }
        var pidfd: Int32 = -1
        var code: Int32 = 0
        let kept = keeping.map(\.rawValue)
        // SAFETY: all that the child reads lives until it has executed its program or ended, which
        // is when `vmm_start_child` returns; it runs on the mapping's end and writes only `code`.
        let child = unsafe kept.withUnsafeBufferPointer { kept in
            unsafe words.withUnsafeBufferPointer { words in
                unsafe path.withCString { path in
                    var start = unsafe vmm_child(
                        path: path, arguments: words.baseAddress,
                        kept: kept.baseAddress, kept_count: kept.count, output: output.rawValue,
                        null: null.rawValue, parent: 0, code: 0)
                    let child = unsafe vmm_start_child(
                        &start, stack.base + stack.count, &pidfd)
                    code = unsafe start.code
                    return child
                }
            }
        }
        guard child > 0 else { throw HostError("start", path, code: code) }
        descriptor = FileDescriptor(owning: pidfd)
        identifier = child
        guard code == 0 else {
            wait(0)
            throw HostError("start", path, code: code)
        }
    }

    deinit {
        kill()
    }

    /// Ends the process at once, if it still runs, and takes its entry out of the kernel's table.
    /// One that has made itself another user, and that a process without rights may not signal, is
    /// left to end with what it has from us.
    package func kill() {
        guard end == nil else { return }
        guard vmm_signal_process(descriptor.rawValue, SIGKILL) == 0 else { return }
        wait(0)
    }

    /// How the process ended; nil while it runs.
    package func poll() -> End? {
        if end == nil { wait(WNOHANG) }
        return end
    }

    private func wait(_ options: Int32) {
        var status: Int32 = 0
        // SAFETY: the kernel writes one number into `status`.
        let found = retryingInterrupts { unsafe waitpid(identifier, &status, options) }
        guard found == identifier else { return }
        // The layout of wait(2): a signal in the low seven bits, else the status above.
        let signal = status & 0x7f
        end = signal == 0 ? .exited(status >> 8 & 0xff) : .killed(signal)
    }

    /// Where the program `name` is, by the folders of PATH and those where a system has it; nil
    /// when it is nowhere.
    package static func find(_ name: String) -> String? {
        // SAFETY: the environment does not change while we run; the value is copied.
        let value = unsafe getenv("PATH").map { unsafe String(cString: $0) } ?? ""
        let folders = value.split(separator: ":").map(String.init) + ["/usr/bin", "/usr/local/bin"]
        return folders.lazy.map { $0 + "/" + name }.first { unsafe access($0, X_OK) == 0 }
    }

    /// Two ends for a child's output: ours, which never waits, and the child's.
    package static func makeOutput() throws(HostError) -> (
        near: FileDescriptor, far: FileDescriptor
    ) {
        let pair = try UnixSocket.streamPair()
        try pair.0.setNonBlocking(true)
        return (near: pair.0, far: pair.1)
    }
}
