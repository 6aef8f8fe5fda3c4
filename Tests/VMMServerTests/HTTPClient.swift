import Testing
import VMMHost

/// A client that sends what it is told, byte by byte if need be, and reads what comes.
final class HTTPClient {
    /// Longer than any machine is busy.
    private static let patience: Int32 = 60_000

    let socket: FileDescriptor
    private var input: [UInt8] = []

    init(_ path: String) throws {
        socket = try UnixListener.connect(to: path)
    }

    /// Sends all of `text`, with the descriptors at its first byte.
    func send(_ text: String, _ descriptors: [FileDescriptor] = []) throws {
        var bytes = Array(text.utf8)
        var descriptors = descriptors
        while !bytes.isEmpty {
            guard socket.isReady(.writable, waitingMilliseconds: Self.patience) else { break }
            guard case .moved(let count) = socket.send(bytes, from: 0, with: descriptors) else {
                continue
            }
            bytes.removeFirst(count)
            descriptors = []
        }
    }

    /// Everything up to the end of `count` responses, which have the lengths that they say; less
    /// when the server ends before.
    func receive(_ count: Int = 1) -> [String] {
        var found: [String] = []
        while found.count < count {
            if let response = takeResponse() {
                found.append(response)
            } else if !read() {
                break
            }
        }
        return found
    }

    /// Whether the server has closed the connection, with nothing more to read.
    func isOver() -> Bool {
        while read() {}
        return input.isEmpty
    }

    /// All that comes until the server closes the connection.
    func rest() -> String {
        while read() {}
        defer { input = [] }
        return String(decoding: input, as: UTF8.self)
    }

    private func read() -> Bool {
        guard socket.isReady(.readable, waitingMilliseconds: Self.patience) else { return false }
        var none: [FileDescriptor] = []
        if case .moved = socket.receive(into: &input, limit: 4096, descriptors: &none) {
            return true
        }
        return false
    }

    private func takeResponse() -> String? {
        let text = String(decoding: input, as: UTF8.self)
        guard let head = text.range(of: "\r\n\r\n") else { return nil }
        let length =
            text[..<head.lowerBound].firstMatch(of: /Content-Length: (\d+)/).flatMap { Int($0.1) }
            ?? 0
        let end = text.utf8.distance(from: text.startIndex, to: head.upperBound) + length
        guard input.count >= end else { return nil }
        defer { input.removeFirst(end) }
        return String(decoding: input[..<end], as: UTF8.self)
    }
}
