import CVMMLinux
import Glibc

/// Owns one open descriptor and closes it when released. Calls may come from any thread; the
/// kernel orders them.
package final class FileDescriptor: Sendable {
    package let rawValue: Int32
    private let closesOnRelease: Bool

    /// Takes ownership of `rawValue`.
    package init(owning rawValue: Int32) {
        self.rawValue = rawValue
        self.closesOnRelease = true
    }

    /// Stands for a descriptor that somebody else closes, later than the last use of this.
    init(borrowing rawValue: Int32) {
        self.rawValue = rawValue
        self.closesOnRelease = false
    }

    /// The process's standard streams, which are never closed by us.
    package static let standardInput = FileDescriptor(borrowing: 0)
    package static let standardOutput = FileDescriptor(borrowing: 1)
    package static let standardError = FileDescriptor(borrowing: 2)

    deinit {
        if closesOnRelease { close(rawValue) }
    }

    /// How a file is opened; the descriptor never survives an exec.
    package struct OpenOptions: OptionSet, Sendable {
        package let rawValue: Int32
        package init(rawValue: Int32) { self.rawValue = rawValue }

        package static let readOnly = OpenOptions(rawValue: O_RDONLY)
        package static let writeOnly = OpenOptions(rawValue: O_WRONLY)
        package static let readWrite = OpenOptions(rawValue: O_RDWR)
        package static let create = OpenOptions(rawValue: O_CREAT)
        /// With `create`: nothing may have the name already.
        package static let exclusive = OpenOptions(rawValue: O_EXCL)
        package static let truncate = OpenOptions(rawValue: O_TRUNC)
        package static let append = OpenOptions(rawValue: O_APPEND)
        package static let nonBlocking = OpenOptions(rawValue: O_NONBLOCK)
        package static let direct = OpenOptions(rawValue: vmmDirectFlag)
        package static let noControllingTerminal = OpenOptions(rawValue: O_NOCTTY)
        /// A symbolic link as the path's last part is an error.
        package static let noFollow = OpenOptions(rawValue: O_NOFOLLOW)
        /// O_PATH: the file is not opened, and does not notice.
        package static let pathOnly = OpenOptions(rawValue: 0o10000000)
    }

    package static func open(
        _ path: String, _ options: OpenOptions, mode: UInt32 = 0o600
    ) throws(HostError) -> FileDescriptor {
        let raw = retryingInterrupts {
            unsafe vmm_open(path, options.rawValue | O_CLOEXEC, mode)
        }
        guard raw >= 0 else { throw .last("open", path) }
        return FileDescriptor(owning: raw)
    }

    /// Takes a file's name away; nothing happens where none has it.
    package static func removeFile(_ path: String) {
        // SAFETY: the kernel reads the text up to its end.
        unsafe _ = unlink(path)
    }

    /// A copy of a descriptor that whoever started this process left open for it: he may have
    /// opened it for more than us.
    package static func inherited(_ rawValue: Int32) throws(HostError) -> FileDescriptor {
        do throws(HostError) {
            return try FileDescriptor(borrowing: rawValue).duplicate()
        } catch {
            throw HostError("use the descriptor", "\(rawValue)", code: error.code)
        }
    }

    /// A second descriptor for the same open file.
    package func duplicate() throws(HostError) -> FileDescriptor {
        let raw = vmm_fcntl(rawValue, F_DUPFD_CLOEXEC, 0)
        guard raw >= 0 else { throw .last("duplicate a descriptor") }
        return FileDescriptor(owning: raw)
    }

    package func setNonBlocking(_ on: Bool) throws(HostError) {
        let flags = vmm_fcntl(rawValue, F_GETFL, 0)
        guard flags >= 0,
            vmm_fcntl(rawValue, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) >= 0
        else { throw .last("set the flags of a descriptor") }
    }

    package var isTerminal: Bool { isatty(rawValue) == 1 }

    func ioctl(_ request: vmm_ioctl, _ argument: UInt64 = 0) -> Int32 {
        retryingInterrupts { vmm_ioctl_value(rawValue, request, argument) }
    }

    /// An ioctl whose argument the kernel reads and writes in place.
    func ioctl<Argument>(_ request: vmm_ioctl, with argument: inout Argument) -> Int32 {
        // SAFETY: the callers pair each request with the struct that the kernel defines for it.
        unsafe withUnsafeMutablePointer(to: &argument) { pointer in
            retryingInterrupts { unsafe vmm_ioctl_pointer(rawValue, request, pointer) }
        }
    }
}

/// O_DIRECT is `__O_DIRECT` behind a macro that Swift does not import on every architecture.
#if arch(x86_64)
    private let vmmDirectFlag: Int32 = 0o40000
#else
    private let vmmDirectFlag: Int32 = 0o200000
#endif
