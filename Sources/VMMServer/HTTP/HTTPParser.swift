/// Reads requests off a stream, in pieces of any size (RFC 9112). What a client can make it keep
/// is bounded by `Limits`.
package struct HTTPParser: Sendable {
    /// What is refused because it is too much.
    package enum Limits {
        /// Bytes of the request line, the header fields and, of chunked bodies, all between the
        /// chunks: no client of such an API needs a tenth.
        package static let headByteCount = 16 << 10
        package static let fieldCount = 100
        /// As Cloud Hypervisor has it.
        package static let bodyByteCount = 4 << 20
    }

    private enum Stage {
        case requestLine
        case fields
        case body(rest: Int)
        case chunkSize
        case chunk(rest: Int)
        case chunkEnd
        case trailers
    }

    private enum Byte {
        static let lineFeed = UInt8(ascii: "\n")
        static let carriageReturn = UInt8(ascii: "\r")
    }

    private var stage = Stage.requestLine
    private var line: [UInt8] = []
    private var headByteCount = 0
    private var head = HTTPHead()
    private var body: [UInt8] = []

    package init() {}

    /// Bytes of a body that has begun, and will have: what the request at hand costs.
    package var bodyByteCount: Int {
        if case .body(let rest) = stage { return body.count + rest }
        return body.count
    }

    /// Nothing of a request has come yet.
    package var isIdle: Bool {
        if case .requestLine = stage { return line.isEmpty }
        return false
    }

    /// Takes bytes from `offset` on until a request is complete; nil when all are taken and more
    /// are needed. After an error nothing more can be taken.
    package mutating func take(
        _ bytes: [UInt8], from offset: inout Int
    ) throws(HTTPError) -> HTTPRequest? {
        while offset < bytes.count {
            switch stage {
            case .body(let rest):
                let count = min(rest, bytes.count - offset)
                body += bytes[offset..<offset + count]
                offset += count
                if rest == count { return finish() }
                stage = .body(rest: rest - count)
            case .chunk(let rest):
                let count = min(rest, bytes.count - offset)
                body += bytes[offset..<offset + count]
                offset += count
                stage = rest == count ? .chunkEnd : .chunk(rest: rest - count)
            case .requestLine, .fields, .chunkSize, .chunkEnd, .trailers:
                let byte = bytes[offset]
                offset += 1
                if let request = try takeLine(byte) { return request }
            }
        }
        return nil
    }

    /// True once for each client that waits for a word before it sends its body.
    package mutating func takeExpectation() -> Bool {
        switch stage {
        case .body, .chunkSize:
            defer { head.expectsContinue = false }
            return head.expectsContinue && body.isEmpty
        default: return false
        }
    }

    // MARK: lines

    private mutating func takeLine(_ byte: UInt8) throws(HTTPError) -> HTTPRequest? {
        headByteCount += 1
        guard headByteCount <= Limits.headByteCount else {
            throw HTTPError(
                .headerFieldsTooLarge,
                "the request's head has more than \(Limits.headByteCount) bytes")
        }
        guard byte == Byte.lineFeed else {
            line.append(byte)
            return nil
        }
        if line.last == Byte.carriageReturn { line.removeLast() }
        defer { line.removeAll(keepingCapacity: true) }
        // Anything else below the space would make two readers see two requests.
        guard line.allSatisfy({ $0 == 0x09 || $0 >= 0x20 && $0 != 0x7f }) else {
            throw HTTPError(.badRequest, "there is a control character in the request's head")
        }
        return try endLine()
    }

    private mutating func endLine() throws(HTTPError) -> HTTPRequest? {
        switch stage {
        case .requestLine:
            // Some clients end a body with a line end of its own.
            if line.isEmpty { return nil }
            try head.takeRequestLine(line)
            stage = .fields
        case .fields:
            if line.isEmpty { return try beginBody() }
            try head.takeField(line)
        case .chunkSize: try beginChunk()
        case .chunkEnd:
            guard line.isEmpty else { throw HTTPError(.badRequest, "a chunk is too long") }
            stage = .chunkSize
        case .trailers:
            if line.isEmpty { return finish() }
        case .body, .chunk: break
        }
        return nil
    }

    // MARK: bodies

    private mutating func beginBody() throws(HTTPError) -> HTTPRequest? {
        switch try head.framing() {
        case .none: return finish()
        case .chunked: stage = .chunkSize
        case .length(let count):
            try requireRoom(count)
            if count == 0 { return finish() }
            stage = .body(rest: count)
        }
        return nil
    }

    private mutating func beginChunk() throws(HTTPError) {
        // What follows a semicolon is an extension, which everybody ignores.
        let digits = line.prefix { $0 != UInt8(ascii: ";") && $0 != UInt8(ascii: " ") }
        guard (1...8).contains(digits.count),
            digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let count = Int(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw HTTPError(.badRequest, "a chunk's size is no number") }
        try requireRoom(count)
        stage = count == 0 ? .trailers : .chunk(rest: count)
    }

    private func requireRoom(_ count: Int) throws(HTTPError) {
        guard count <= Limits.bodyByteCount - body.count else {
            throw HTTPError(
                .contentTooLarge, "the body has more than \(Limits.bodyByteCount) bytes")
        }
    }

    private mutating func finish() -> HTTPRequest {
        let request = head.request(body: body)
        self = HTTPParser()
        return request
    }
}
