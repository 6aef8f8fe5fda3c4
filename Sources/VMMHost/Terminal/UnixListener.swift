import CVMMLinux
import Glibc

/// A listening Unix stream socket with a name in the file system. Any thread.
package final class UnixListener: Sendable {
    /// Why there is no socket, in one sentence for the user.
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// Readable when a client waits.
    package let descriptor: FileDescriptor
    /// The socket's file.
    package let path: String
    /// The socket file as we made it, so that we never remove somebody else's.
    private let identity: (device: UInt64, inode: UInt64)

    /// Listens at `path`. A socket file that nobody listens on any more is replaced.
    package init(path: String) throws(Failure) {
        var address = try Self.address(path)
        try Self.removeStale(path, &address)
        descriptor = try Self.makeSocket(path)
        let raw = descriptor.rawValue
        let bound = unsafe Self.withAddress(&address) { unsafe bind(raw, $0, $1) }
        guard bound == 0 else { throw Self.failure("listen on", path) }
        // One client is served at a time; a few more may wait for the next turn of the loop.
        guard listen(raw, 8) == 0 else { throw Self.failure("listen on", path) }
        guard let identity = Self.identity(path) else { throw Self.failure("examine", path) }
        self.path = path
        self.identity = identity
    }

    /// The next waiting client, or nil when there is none.
    package func accept() -> FileDescriptor? {
        let raw = retryingInterrupts { Glibc.accept(descriptor.rawValue, nil, nil) }
        guard raw >= 0 else { return nil }
        let client = FileDescriptor(owning: raw)
        do throws(HostError) {
            try client.closeOnExec()
            try client.setNonBlocking(true)
            return client
        } catch {
            return nil
        }
    }

    /// Removes the socket file, unless another one has taken its place.
    package func removeFile() {
        guard let now = Self.identity(path), now == identity else { return }
        unsafe _ = unlink(path)
    }

    /// Connects to a listener; for tests and for tools that are clients. Blocking.
    package static func connect(to path: String) throws(Failure) -> FileDescriptor {
        var address = try address(path)
        let client = try makeSocket(path, flags: 0)
        let raw = client.rawValue
        let result = unsafe withAddress(&address) { pointer, size in
            retryingInterrupts { unsafe Glibc.connect(raw, pointer, size) }
        }
        guard result == 0 else { throw failure("connect to", path) }
        return client
    }

    // MARK: names

    private static func address(_ path: String) throws(Failure) -> sockaddr_un {
        var address = sockaddr_un()
        let bytes = Array(path.utf8)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard !bytes.isEmpty else { throw Failure(description: "the socket path is empty") }
        // The name ends with a zero byte, which must fit as well (unix(7)).
        guard bytes.count < room else {
            throw Failure(
                description: "the socket path '\(path)' is too long: \(bytes.count) bytes, and at"
                    + " most \(room - 1) are allowed")
        }
        address.sun_family = sa_family_t(AF_UNIX)
        // SAFETY: bytes.count < room, the size of sun_path.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        return address
    }

    private static func withAddress(
        _ address: inout sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        // SAFETY: every socket address may be seen as sockaddr; the size tells which it is.
        unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// Makes way where a process left its socket file behind.
    private static func removeStale(
        _ path: String, _ address: inout sockaddr_un
    ) throws(Failure) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw Failure(description: "'\(path)' exists and is not a socket")
        }
        let probe = try makeSocket(path)
        let raw = probe.rawValue
        let result = unsafe withAddress(&address) { unsafe Glibc.connect(raw, $0, $1) }
        // Only a refusal says that nobody listens: a full backlog answers EAGAIN.
        guard result != 0, errno == ECONNREFUSED else {
            throw Failure(description: "the socket '\(path)' is in use")
        }
        guard unsafe unlink(path) == 0 else { throw failure("replace", path) }
    }

    private static func makeSocket(
        _ path: String, flags: UInt32 = SOCK_NONBLOCK.rawValue
    ) throws(Failure) -> FileDescriptor {
        let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | flags), 0)
        guard raw >= 0 else { throw failure("create", path) }
        return FileDescriptor(owning: raw)
    }

    private static func failure(_ operation: String, _ path: String) -> Failure {
        Failure(description: HostError.last("\(operation) the socket", path).description)
    }

    private static func identity(_ path: String) -> (device: UInt64, inode: UInt64)? {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return nil }
        return (UInt64(status.st_dev), UInt64(status.st_ino))
    }
}
