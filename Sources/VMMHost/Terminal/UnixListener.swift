import CVMMLinux
import Glibc

/// A listening Unix stream socket with a name in the file system. Any thread.
package final class UnixListener: Sendable {
    /// Why there is no socket, in one sentence for the user.
    package struct Failure: Error, CustomStringConvertible {
        package let description: String

        package init(description: String) { self.description = description }
    }

    /// Readable when a client waits.
    package let descriptor: FileDescriptor
    /// The socket's file; empty for a socket that somebody else made.
    package let path: String
    /// The socket file as we made it, so that we never remove somebody else's.
    private let identity: (device: UInt64, inode: UInt64)?

    /// The longest path that a socket can have, in bytes: the name ends with a zero (unix(7)).
    package static let maximumPathLength = MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1

    /// Listens at `path`. A socket file that nobody listens on any more is replaced. `backlog`
    /// clients may wait to be accepted: by default a few, for one that is served at a time. A
    /// private socket's file is the owner's alone, whatever the umask.
    package init(path: String, backlog: Int32 = 8, isPrivate: Bool = false) throws(Failure) {
        var address = try Self.address(path)
        try Self.removeStale(path, &address)
        descriptor = try Self.makeSocket(path)
        let raw = descriptor.rawValue
        // The file gets the mode that the socket has before it is bound.
        if isPrivate, fchmod(raw, 0o600) != 0 { throw Self.failure("restrict", path) }
        let bound = unsafe Self.withAddress(&address) { unsafe bind(raw, $0, $1) }
        guard bound == 0 else { throw Self.failure("listen on", path) }
        guard listen(raw, backlog) == 0 else { throw Self.failure("listen on", path) }
        guard let identity = Self.identity(path) else { throw Self.failure("examine", path) }
        self.path = path
        self.identity = identity
    }

    /// Takes over a socket that listens already, and that whoever started us left open.
    package init(inherited raw: Int32) throws(Failure) {
        path = ""
        identity = nil
        do throws(HostError) {
            descriptor = try FileDescriptor.inherited(raw)
            try descriptor.setNonBlocking(true)
        } catch {
            throw Failure(description: error.description)
        }
        var listens: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        // SAFETY: the kernel writes at most `size` bytes, the size of `listens`.
        let result = unsafe getsockopt(
            descriptor.rawValue, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size)
        guard result == 0, listens != 0 else {
            throw Failure(description: "the descriptor \(raw) is no socket that listens")
        }
    }

    /// The next waiting client, or nil when there is none or it cannot be taken. For tests; a loop
    /// has to know of a client that goes on waiting (`serve`, `next`).
    package func accept() -> FileDescriptor? {
        try? next()
    }

    /// The next waiting client, non-blocking, or nil when there is none. Fails when descriptors
    /// or memory run out; the client goes on waiting then.
    package func next() throws(HostError) -> FileDescriptor? {
        let flags = Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let raw = retryingInterrupts { vmm_accept(descriptor.rawValue, flags) }
        if raw >= 0 { return FileDescriptor(owning: raw) }
        if errno == EAGAIN || errno == ECONNABORTED { return nil }
        throw .last("accept a client of the socket", path)
    }

    /// Removes the socket file, unless another one has taken its place.
    package func removeFile() {
        guard let identity, let now = Self.identity(path), now == identity else { return }
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

    static func address(_ path: String) throws(Failure) -> sockaddr_un {
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

    static func withAddress(
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
    static func removeStale(
        _ path: String, _ address: inout sockaddr_un, type: __socket_type = SOCK_STREAM
    ) throws(Failure) {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw Failure(description: "'\(path)' exists and is not a socket")
        }
        let probe = try makeSocket(path, type: type)
        let raw = probe.rawValue
        let result = unsafe withAddress(&address) { unsafe Glibc.connect(raw, $0, $1) }
        // Only a refusal says that nobody listens: a full backlog answers EAGAIN.
        guard result != 0, errno == ECONNREFUSED else {
            throw Failure(description: "the socket '\(path)' is in use")
        }
        guard unsafe unlink(path) == 0 else { throw failure("replace", path) }
    }

    static func makeSocket(
        _ path: String, type: __socket_type = SOCK_STREAM, flags: UInt32 = SOCK_NONBLOCK.rawValue
    ) throws(Failure) -> FileDescriptor {
        let raw = socket(AF_UNIX, Int32(type.rawValue | SOCK_CLOEXEC.rawValue | flags), 0)
        guard raw >= 0 else { throw failure("create", path) }
        return FileDescriptor(owning: raw)
    }

    static func failure(_ operation: String, _ path: String) -> Failure {
        Failure(description: HostError.last("\(operation) the socket", path).description)
    }

    static func identity(_ path: String) -> (device: UInt64, inode: UInt64)? {
        var status = stat()
        guard unsafe lstat(path, &status) == 0 else { return nil }
        return (UInt64(status.st_dev), UInt64(status.st_ino))
    }
}
