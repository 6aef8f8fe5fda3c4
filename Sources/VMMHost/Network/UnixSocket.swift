import CVMMLinux
import Glibc

/// Unix sockets that do not listen: clients of streams, datagram sockets and pairs. None of the
/// calls waits for a peer. Any thread.
package enum UnixSocket {
    /// A stream to whoever listens at `path`.
    package static func connectStream(to path: String) throws(HostError) -> FileDescriptor {
        let client = try make(SOCK_STREAM)
        try connect(client, to: path)
        return client
    }

    /// Two ends of one stream.
    package static func streamPair() throws(HostError) -> (FileDescriptor, FileDescriptor) {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        // SAFETY: the kernel writes two numbers into an array of two.
        guard unsafe socketpair(AF_UNIX, type, 0, &ends) == 0 else {
            throw .last("make a pair of sockets")
        }
        return (FileDescriptor(owning: ends[0]), FileDescriptor(owning: ends[1]))
    }

    /// Connects a socket anew. Of a datagram socket, only the peer's datagrams come in from then
    /// on.
    package static func connect(
        _ socket: FileDescriptor, to path: String
    ) throws(HostError) {
        var address = try address(path)
        let raw = socket.rawValue
        let result = unsafe UnixListener.withAddress(&address) { pointer, size in
            retryingInterrupts { unsafe Glibc.connect(raw, pointer, size) }
        }
        guard result == 0 else { throw .last("connect to", path) }
    }

    /// What is wrong with a socket's path, before anything is done with it; nil when it can be one.
    package static func problem(path: String) -> String? {
        do throws(UnixListener.Failure) {
            _ = try UnixListener.address(path)
            return nil
        } catch {
            return error.description
        }
    }

    private static func address(_ path: String) throws(HostError) -> sockaddr_un {
        do throws(UnixListener.Failure) {
            return try UnixListener.address(path)
        } catch {
            throw HostError("use the socket path", path, code: ENAMETOOLONG)
        }
    }

    private static func make(_ type: __socket_type) throws(HostError) -> FileDescriptor {
        let flags = SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        let raw = socket(AF_UNIX, Int32(type.rawValue | flags), 0)
        guard raw >= 0 else { throw .last("open a socket") }
        return FileDescriptor(owning: raw)
    }
}

/// A datagram socket with a name in the file system, which goes with the object. Any thread.
package final class UnixDatagramSocket: Sendable {
    package let descriptor: FileDescriptor
    private let path: String
    /// The socket file as we made it, so that we never remove somebody else's.
    private let identity: (device: UInt64, inode: UInt64)?

    /// Receives at `path`. A socket file that nobody receives on any more is replaced.
    package init(path: String) throws(UnixListener.Failure) {
        var address = try UnixListener.address(path)
        try UnixListener.removeStale(path, &address, type: SOCK_DGRAM)
        descriptor = try UnixListener.makeSocket(path, type: SOCK_DGRAM)
        let raw = descriptor.rawValue
        let bound = unsafe UnixListener.withAddress(&address) { unsafe bind(raw, $0, $1) }
        guard bound == 0 else { throw UnixListener.failure("receive on", path) }
        self.path = path
        identity = UnixListener.identity(path)
    }

    deinit { removeFile() }

    /// Removes the socket file, unless another one has taken its place.
    package func removeFile() {
        if let identity, let now = UnixListener.identity(path), now == identity {
            unsafe _ = unlink(path)
        }
    }
}
