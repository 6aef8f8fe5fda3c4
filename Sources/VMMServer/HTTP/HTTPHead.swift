/// A request's first line and the header fields that matter here, as they come.
struct HTTPHead: Sendable {
    /// Where the body ends.
    enum Framing {
        case none
        case length(Int)
        case chunked
    }

    /// The client wants to be told before it sends its body.
    var expectsContinue = false
    private var method = ""
    private var path = ""
    private var isOldVersion = false
    private var fieldCount = 0
    private var length: Int?
    private var isChunked = false
    private var keepsAlive = true

    mutating func takeRequestLine(_ line: [UInt8]) throws(HTTPError) {
        let words = String(decoding: line, as: UTF8.self)
            .split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, Self.isToken(words[0]), !words[1].isEmpty else {
            throw HTTPError(.badRequest, "the first line is no 'METHOD /path HTTP/1.1'")
        }
        guard words[2] == "HTTP/1.1" || words[2] == "HTTP/1.0" else {
            throw HTTPError(
                words[2].hasPrefix("HTTP/") ? .versionNotSupported : .badRequest,
                "expected HTTP/1.1")
        }
        isOldVersion = words[2] == "HTTP/1.0"
        keepsAlive = !isOldVersion
        method = String(words[0])
        path = String(try Self.path(words[1]))
    }

    /// A target may also be a whole address, as for a proxy.
    private static func path(_ target: Substring) throws(HTTPError) -> Substring {
        var rest = target
        if target.hasPrefix("http://") {
            let authority = target.dropFirst("http://".count)
            rest = authority.firstIndex(of: "/").map { authority[$0...] } ?? "/"
        }
        guard rest.hasPrefix("/"), rest.utf8.allSatisfy({ (0x21...0x7e).contains($0) }) else {
            throw HTTPError(.badRequest, "the request's target is no path")
        }
        return rest.prefix { $0 != "?" && $0 != "#" }
    }

    mutating func takeField(_ line: [UInt8]) throws(HTTPError) {
        fieldCount += 1
        guard fieldCount <= HTTPParser.Limits.fieldCount else {
            throw HTTPError(
                .headerFieldsTooLarge,
                "there are more than \(HTTPParser.Limits.fieldCount) header fields")
        }
        let text = String(decoding: line, as: UTF8.self)
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, Self.isToken(parts[0]) else {
            throw HTTPError(.badRequest, "a header field is no 'name: value'")
        }
        let value = Self.trimmed(parts[1])
        switch parts[0].lowercased() {
        case "content-length": try takeLength(value)
        case "transfer-encoding": try takeEncoding(value)
        case "connection": takeConnection(value)
        case "expect":
            guard value.lowercased() == "100-continue" else {
                throw HTTPError(.expectationFailed, "expected nothing, or 100-continue")
            }
            expectsContinue = !isOldVersion
        default: break
        }
    }

    private mutating func takeLength(_ value: Substring) throws(HTTPError) {
        guard length == nil else { throw HTTPError(.badRequest, "there are two lengths") }
        guard !value.isEmpty, value.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            throw HTTPError(.badRequest, "the length is no number")
        }
        guard let count = Int(value) else {
            throw HTTPError(.contentTooLarge, "the length is no number that a body can have")
        }
        length = count
    }

    private mutating func takeEncoding(_ value: Substring) throws(HTTPError) {
        guard !isChunked, !isOldVersion else {
            throw HTTPError(.badRequest, "the body's encoding is ambiguous")
        }
        guard value.lowercased() == "chunked" else {
            throw HTTPError(.notImplemented, "of the transfer encodings there is only chunked")
        }
        isChunked = true
    }

    private mutating func takeConnection(_ value: Substring) {
        for option in value.lowercased().split(separator: ",").map(Self.trimmed) {
            if option == "close" { keepsAlive = false }
            if option == "keep-alive", isOldVersion { keepsAlive = true }
        }
    }

    /// Two ways of saying where the body ends are two requests to two readers.
    func framing() throws(HTTPError) -> Framing {
        guard length == nil || !isChunked else {
            throw HTTPError(.badRequest, "there is a length, and chunks")
        }
        if isChunked { return .chunked }
        return length.map { .length($0) } ?? .none
    }

    func request(body: [UInt8]) -> HTTPRequest {
        HTTPRequest(
            method: method, path: path, body: body, keepsAlive: keepsAlive,
            takesChunks: !isOldVersion)
    }

    // MARK: words

    private static let separators = Set("\"(),/:;<=>?@[\\]{}".utf8)

    private static func isToken(_ text: Substring) -> Bool {
        !text.isEmpty
            && text.utf8.allSatisfy { (0x21...0x7e).contains($0) && !separators.contains($0) }
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text
        while text.first == " " || text.first == "\t" { text.removeFirst() }
        while text.last == " " || text.last == "\t" { text.removeLast() }
        return text
    }
}
