import Foundation

/// A program of the host at one end of a Unix stream, with the patterns that `vsock-peer` in the
/// guest sends and expects. Blocking; what takes too long is an error.
final class UnixStream: @unchecked Sendable {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private let descriptor: Int32

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        var patience = timeval(tv_sec: Int(Guest.patience), tv_usec: 0)
        let size = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, size)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, size)
    }

    deinit { close(descriptor) }

    /// Connects to a socket.
    convenience init(to path: String) throws {
        let descriptor = Self.makeSocket()
        let result = Self.withAddress(path) { connect(descriptor, $0, $1) }
        guard result == 0 else {
            close(descriptor)
            throw Failure(description: "nobody answers at \(path): errno \(errno)")
        }
        self.init(descriptor)
    }

    /// Connects to a port of the guest.
    convenience init(_ path: String, port: Int) throws {
        try self.init(to: path)
        try send("CONNECT \(port)\n")
        let answer = try line()
        guard answer.hasPrefix("OK ") else { throw Failure(description: "answer '\(answer)'") }
    }

    fileprivate static func makeSocket() -> Int32 {
        socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    }

    fileprivate static func withAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    // MARK: bytes

    func send(_ text: String) throws {
        try Array(text.utf8).withUnsafeBytes { try send($0) }
    }

    private func send(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let part = UnsafeRawBufferPointer(rebasing: rest)
            let moved = Glibc.send(
                descriptor, part.baseAddress, part.count, Int32(MSG_NOSIGNAL))
            guard moved > 0 else { throw Failure(description: "send: errno \(errno)") }
            rest = rest.dropFirst(moved)
        }
    }

    /// The next line, without its end; shorter at the end of the stream.
    func line() throws -> String {
        var bytes: [UInt8] = []
        while true {
            var byte: UInt8 = 0
            let moved = recv(descriptor, &byte, 1, 0)
            guard moved >= 0 else { throw Failure(description: "receive: errno \(errno)") }
            if moved == 0 || byte == 10 { return String(decoding: bytes, as: UTF8.self) }
            bytes.append(byte)
        }
    }

    /// Reads one byte and sends it back.
    func giveBackOne() throws {
        var byte: UInt8 = 0
        let moved = recv(descriptor, &byte, 1, 0)
        guard moved == 1 else {
            throw Failure(description: moved == 0 ? "the end" : "receive: errno \(errno)")
        }
        try withUnsafeBytes(of: &byte) { try send($0) }
    }

    /// Says that no more comes.
    func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    // MARK: patterns

    /// The byte at offset i is (i * 2654435761) >> 13, which repeats after 2 MiB; twice, so that
    /// 2 MiB from any offset are one piece.
    private static let pattern: [UInt8] = {
        let period = (0..<(1 << 21)).map { UInt8(truncatingIfNeeded: ($0 &* 2_654_435_761) >> 13) }
        return period + period
    }()
    private static let piece = 1 << 20

    func sendPattern(_ total: Int) throws {
        var offset = 0
        while offset < total {
            let start = offset & (1 << 21 - 1)
            let count = min(Self.piece, total - offset)
            try Self.pattern.withUnsafeBytes {
                try send(UnsafeRawBufferPointer(rebasing: $0[start..<start + count]))
            }
            offset += count
        }
    }

    /// Reads `limit` bytes or to the end of the stream, compares them with the pattern, and
    /// returns their number.
    func receivePattern(_ limit: Int = .max) throws -> Int {
        var buffer = [UInt8](repeating: 0, count: Self.piece)
        var offset = 0
        while offset < limit {
            let moved = recv(descriptor, &buffer, min(buffer.count, limit - offset), 0)
            guard moved >= 0 else { throw Failure(description: "receive: errno \(errno)") }
            if moved == 0 { break }
            let start = offset & (1 << 21 - 1)
            let isRight = Self.pattern.withUnsafeBytes {
                let part = UnsafeRawBufferPointer(rebasing: $0[start..<start + moved])
                guard let expected = part.baseAddress else { return false }
                return memcmp(expected, buffer, moved) == 0
            }
            guard isRight else {
                throw Failure(description: "wrong bytes in \(moved) from \(offset) on")
            }
            offset += moved
        }
        return offset
    }

    /// Gives back what comes until the end; the number of bytes.
    func echo() throws -> Int {
        var buffer = [UInt8](repeating: 0, count: Self.piece)
        var total = 0
        while true {
            let moved = recv(descriptor, &buffer, buffer.count, 0)
            guard moved >= 0 else { throw Failure(description: "receive: errno \(errno)") }
            if moved == 0 { break }
            try buffer.withUnsafeBytes {
                try send(UnsafeRawBufferPointer(rebasing: $0[..<moved]))
            }
            total += moved
        }
        endSending()
        return total
    }
}

/// A listening socket of the host.
final class UnixServer: @unchecked Sendable {
    private let descriptor: Int32

    init(_ path: String) throws {
        let descriptor = UnixStream.makeSocket()
        let result = UnixStream.withAddress(path) { bind(descriptor, $0, $1) }
        guard result == 0, listen(descriptor, 64) == 0 else {
            throw UnixStream.Failure(description: "no socket at \(path): errno \(errno)")
        }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    func accept(within seconds: Double = Guest.patience) throws -> UnixStream {
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, Int32(seconds * 1000)) == 1 else {
            throw UnixStream.Failure(description: "nobody connected")
        }
        return UnixStream(Glibc.accept(descriptor, nil, nil))
    }
}

/// Work of a test on a thread of its own.
final class Background<Value>: @unchecked Sendable {
    private let done = DispatchSemaphore(value: 0)
    private var result: Result<Value, any Error>?

    init(_ work: @escaping @Sendable () throws -> Value) {
        Thread.detachNewThread { [self] in
            result = Result { try work() }
            done.signal()
        }
    }

    /// Waits for its end.
    func value(within seconds: Double = Guest.patience) throws -> Value {
        guard done.wait(timeout: .now() + seconds) == .success, let result else {
            throw UnixStream.Failure(description: "\(Int(seconds)) s were not enough")
        }
        return try result.get()
    }
}
