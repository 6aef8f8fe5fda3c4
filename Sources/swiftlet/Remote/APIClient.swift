import VMMHost

/// A monitor's API on its socket: one request, one answer. Waits as long as it takes.
struct APIClient {
    /// A request that could not be made, or that the monitor refused.
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    let socket: String

    /// Sends a request and returns the body of the answer, which may be empty. A refusal is a
    /// failure with the monitor's own sentences.
    func ask(_ method: String, _ name: String, _ body: RemoteBody = .nothing) throws -> [UInt8] {
        let connection = try UnixListener.connect(to: socket)
        var head = "\(method) /api/v1/\(name) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += "Accept: application/json\r\n"
        if !body.json.isEmpty {
            head += "Content-Type: application/json\r\nContent-Length: \(body.json.count)\r\n"
        }
        send(Array((head + "\r\n").utf8) + body.json, body.descriptors, to: connection)
        var bytes: [UInt8] = []
        while try receive(into: &bytes, from: connection) {}
        return try Self.answer(bytes)
    }

    /// Hands each line of an answer that goes on to `take`, until the monitor ends it.
    func follow(_ name: String, take: ([UInt8]) -> Void) throws {
        let connection = try UnixListener.connect(to: socket)
        // The old version of HTTP knows no chunks: the lines come as they are.
        let request = "GET /api/v1/\(name) HTTP/1.0\r\nHost: localhost\r\n\r\n"
        send(Array(request.utf8), [], to: connection)
        var bytes: [UInt8] = []
        while Self.headEnd(bytes) == nil, try receive(into: &bytes, from: connection) {}
        guard String(decoding: bytes.prefix(12), as: UTF8.self) == "HTTP/1.1 200" else {
            while try receive(into: &bytes, from: connection) {}
            _ = try Self.answer(bytes)
            throw Failure(description: "the answer is no list of events")
        }
        bytes.removeFirst(Self.headEnd(bytes) ?? 0)
        repeat {
            while let end = bytes.firstIndex(of: UInt8(ascii: "\n")) {
                take(Array(bytes[..<end]))
                bytes.removeFirst(end + 1)
            }
        } while try receive(into: &bytes, from: connection)
    }

    /// The descriptors go with the first byte.
    private func send(
        _ bytes: [UInt8], _ descriptors: [FileDescriptor], to connection: FileDescriptor
    ) {
        var sent = 0
        while sent < bytes.count {
            _ = connection.isReady(.writable, waitingMilliseconds: -1)
            let moved = connection.send(bytes, from: sent, with: sent == 0 ? descriptors : [])
            switch moved {
            case .moved(let count): sent += count
            case .wouldBlock: continue
            // It may have refused before it read all of the request: its answer tells.
            case .endOfFile, .failed: return
            }
        }
    }

    /// Waits for more; false at the end.
    private func receive(
        into bytes: inout [UInt8], from connection: FileDescriptor
    ) throws -> Bool {
        while true {
            switch connection.read(into: &bytes, limit: 64 << 10) {
            case .moved: return true
            case .wouldBlock: _ = connection.isReady(.readable, waitingMilliseconds: -1)
            case .endOfFile: return false
            case .failed(let code):
                throw HostError("read the answer from", socket, code: code)
            }
        }
    }

    /// Where the body begins.
    private static func headEnd(_ bytes: [UInt8]) -> Int? {
        let end = Array("\r\n\r\n".utf8)
        return bytes.indices.first { bytes[$0...].starts(with: end) }.map { $0 + end.count }
    }

    /// The body of a whole answer; a refusal is a failure.
    private static func answer(_ bytes: [UInt8]) throws -> [UInt8] {
        let words = String(decoding: bytes.prefix { $0 != 0x0d }, as: UTF8.self).split(
            separator: " ")
        guard let start = headEnd(bytes), words.count > 1, let status = Int(words[1]) else {
            throw Failure(description: "the answer is no HTTP; is this the socket of an API?")
        }
        let body = Array(bytes[start...])
        guard (200..<300).contains(status) else {
            throw Failure(description: sentences(body, status))
        }
        return body
    }

    private static func sentences(_ body: [UInt8], _ status: Int) -> String {
        let text = String(decoding: body, as: UTF8.self)
        guard let lines = try? JSONText.strings(text), !lines.isEmpty else {
            return "status \(status) \(text)"
        }
        return lines.joined(separator: ": ")
    }
}
