import CVMMLinux
import Glibc

/// A descriptor whose transfers never wait. The flags of an open file that other processes share
/// (the standard streams) stay as they are: a shell whose terminal turned non-blocking breaks.
/// Any thread.
package final class ByteStream: Sendable {
    private enum Mode {
        /// The open file is ours and non-blocking.
        case nonBlocking
        /// A regular file or the like: it never waits.
        case file
        /// A socket: each call says for itself that it does not wait.
        case socket
        /// Shared and blocking: asked for readiness first, and written in pieces of `limit` bytes.
        case polled(limit: Int)
    }

    /// What to wait for in a loop.
    package let descriptor: FileDescriptor
    private let mode: Mode

    private init(_ descriptor: FileDescriptor, _ mode: Mode) {
        self.descriptor = descriptor
        self.mode = mode
    }

    /// A descriptor of our own, which becomes non-blocking.
    package convenience init(nonBlocking descriptor: FileDescriptor) throws(HostError) {
        try descriptor.setNonBlocking(true)
        self.init(descriptor, Self.isSocket(descriptor) ? .socket : .nonBlocking)
    }

    /// A file on a disk.
    package convenience init(file descriptor: FileDescriptor) {
        self.init(descriptor, .file)
    }

    /// The process's standard input, whose flags stay as they are.
    package static func standardInput() throws(HostError) -> ByteStream {
        try shared(.standardInput, .readOnly)
    }

    /// The process's standard output, whose flags stay as they are.
    package static func standardOutput() throws(HostError) -> ByteStream {
        try shared(.standardOutput, .writeOnly)
    }

    /// A stream over a descriptor whose open file others share. Terminals and pipes are opened a
    /// second time where /proc allows it, which gives an open file with flags of its own.
    package static func shared(
        _ descriptor: FileDescriptor, _ direction: FileDescriptor.OpenOptions
    ) throws(HostError) -> ByteStream {
        if isSocket(descriptor) { return ByteStream(try descriptor.duplicate(), .socket) }
        let isTerminal = descriptor.isTerminal
        let kind = try descriptor.metadata().kind
        guard isTerminal || kind == .other else {
            return ByteStream(try descriptor.duplicate(), .file)
        }
        let path = "/proc/self/fd/\(descriptor.rawValue)"
        do throws(HostError) {
            let own = try FileDescriptor.open(
                path, [direction, .nonBlocking, .noControllingTerminal])
            return ByteStream(own, .nonBlocking)
        } catch {
            // A ready pipe takes PIPE_BUF bytes without waiting (pipe(7)). A ready terminal
            // promises less than that; 256 bytes is the kernel's own threshold (WAKEUP_CHARS).
            let limit = isTerminal ? 256 : 4096
            return ByteStream(try descriptor.duplicate(), .polled(limit: limit))
        }
    }

    /// Reads up to `limit` bytes and appends them to `bytes`.
    package func read(into bytes: inout [UInt8], limit: Int) -> FileDescriptor.Transfer {
        switch mode {
        case .nonBlocking, .file: break
        case .socket, .polled:
            guard descriptor.isReady(.readable) else { return .wouldBlock }
        }
        return descriptor.read(into: &bytes, limit: limit)
    }

    /// Writes `bytes` from `offset` on, as far as the stream takes them now.
    package func write(_ bytes: [UInt8], from offset: Int) -> FileDescriptor.Transfer {
        guard offset < bytes.count else { return .moved(0) }
        switch mode {
        case .nonBlocking, .file:
            return descriptor.write(bytes, from: offset)
        case .socket:
            return descriptor.send(bytes, offset..<bytes.count)
        case .polled(let limit):
            guard descriptor.isReady(.writable) else { return .wouldBlock }
            return descriptor.write(Array(bytes[offset...].prefix(limit)))
        }
    }

    private static func isSocket(_ descriptor: FileDescriptor) -> Bool {
        var type: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        // SAFETY: the kernel writes at most `size` bytes, the size of `type`.
        return unsafe getsockopt(descriptor.rawValue, SOL_SOCKET, SO_TYPE, &type, &size) == 0
    }
}
