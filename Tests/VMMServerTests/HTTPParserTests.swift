import Testing

@testable import VMMServer

/// All requests in `text`, given in pieces of `step` bytes.
private func requests(_ text: String, step: Int = .max) throws(HTTPError) -> [HTTPRequest] {
    let bytes = Array(text.utf8)
    var parser = HTTPParser()
    var found: [HTTPRequest] = []
    var start = 0
    while start < bytes.count {
        let piece = Array(bytes[start..<min(bytes.count, start + min(step, bytes.count))])
        start += piece.count
        var offset = 0
        while let request = try parser.take(piece, from: &offset) { found.append(request) }
    }
    return found
}

private func status(_ text: String) -> HTTPStatus? {
    do throws(HTTPError) {
        _ = try requests(text)
        return nil
    } catch {
        return error.status
    }
}

private func request(_ fields: String, _ body: String = "") -> String {
    "PUT /a HTTP/1.1\r\n" + fields + "\r\n" + body
}

@Suite("HTTPParser")
struct HTTPParserTests {
    private static let three =
        "GET /api/v1/vmm.ping?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        + "PUT /a HTTP/1.1\r\nContent-Length: 5\r\nX: é\r\n\r\nhello"
        + "\r\nPUT http://host/b HTTP/1.1\nTransfer-Encoding: Chunked\n\n"
        + "3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"

    @Test("requests are found, however the stream is cut", arguments: [1, 2, 3, 7, 64, 1000])
    func cuts(step: Int) throws {
        let found = try requests(Self.three, step: step)
        #expect(
            found == [
                HTTPRequest(method: "GET", path: "/api/v1/vmm.ping"),
                HTTPRequest(method: "PUT", path: "/a", body: Array("hello".utf8)),
                HTTPRequest(method: "PUT", path: "/b", body: Array("abc0123456789".utf8)),
            ])
    }

    @Test("a connection is kept unless one side is against it")
    func keeping() throws {
        let kept = try requests(
            request("") + request("Connection: close\r\n") + "GET / HTTP/1.0\r\n\r\n"
                + "GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"
        ).map(\.keepsAlive)
        #expect(kept == [true, false, false, true])
    }

    @Test("a client that waits with its body is told once to send it")
    func expecting() throws {
        var parser = HTTPParser()
        var offset = 0
        let head = Array(request("Expect: 100-continue\r\nContent-Length: 1\r\n").utf8)
        #expect(try parser.take(head, from: &offset) == nil)
        let first = parser.takeExpectation()
        let second = parser.takeExpectation()
        #expect(first && !second)
        offset = 0
        #expect(try parser.take([0x41], from: &offset)?.body == [0x41])
    }

    @Test(
        "what two readers could read in two ways is refused",
        arguments: [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +1\r\n", "Content-Length: 0x1\r\n", "Content-Length:\r\n",
            "Content-Length : 1\r\n", "X: a\u{0}b\r\n", "X: a\rb\r\n", " X: a\r\n",
            "no colon\r\n", ": a\r\n",
        ])
    func ambiguities(fields: String) {
        #expect(status(request(fields)) == .badRequest)
    }

    @Test(
        "a first line that is none is refused",
        arguments: [
            "GET\r\n", "GET /\r\n", "GET  / HTTP/1.1\r\n", "GET a HTTP/1.1\r\n",
            "GET / HTTP/1.1 x\r\n", "G(T / HTTP/1.1\r\n", "GET /é HTTP/1.1\r\n",
            "\u{16}\u{3}\u{1}\r\n", "GET / FTP/1.1\r\n",
        ])
    func firstLines(line: String) {
        #expect(status(line) == .badRequest)
    }

    @Test("each refusal has its status")
    func statuses() {
        #expect(status("GET / HTTP/2.0\r\n") == .versionNotSupported)
        #expect(status(request("Transfer-Encoding: gzip\r\n")) == .notImplemented)
        #expect(status(request("Expect: a miracle\r\n")) == .expectationFailed)
        #expect(status(request("Content-Length: 4194305\r\n")) == .contentTooLarge)
        #expect(status(request("Content-Length: 99999999999999999999\r\n")) == .contentTooLarge)
        let chunks = request("Transfer-Encoding: chunked\r\n")
        #expect(status(chunks + "400001\r\n") == .contentTooLarge)
        #expect(status(chunks + "\r\n") == .badRequest)
        #expect(status(chunks + "1\r\nab\r\n") == .badRequest)
        #expect(status(chunks + "fffffffff\r\n") == .badRequest)
        #expect(status(request("Content-Length: 4194304\r\n")) == nil)
    }

    @Test("what is kept of an endless request has an end")
    func limits() {
        let long = String(repeating: "a", count: HTTPParser.Limits.headByteCount)
        let many = String(repeating: "a: b\r\n", count: HTTPParser.Limits.fieldCount + 1)
        let chunks = String(repeating: "1\r\na\r\n", count: HTTPParser.Limits.headByteCount / 4)
        #expect(status(long + long) == .headerFieldsTooLarge)
        #expect(status(request("X: \(long)\r\n")) == .headerFieldsTooLarge)
        #expect(status(request(many)) == .headerFieldsTooLarge)
        #expect(
            status(request("Transfer-Encoding: chunked\r\n", chunks)) == .headerFieldsTooLarge)
    }

    @Test("responses have the shape that clients know")
    func responses() {
        func text(_ response: HTTPResponse) -> String {
            String(decoding: response.bytes(keepsAlive: true), as: UTF8.self)
        }
        #expect(
            text(HTTPResponse(.noContent)) == """
                HTTP/1.1 204 No Content\r
                Server: Cloud Hypervisor API\r
                Connection: keep-alive\r
                \r

                """)
        let failure = text(HTTPResponse(.notFound, chain: ["Not Found"]))
        #expect(failure.hasSuffix("Content-Length: 13\r\n\r\n[\"Not Found\"]"))
    }
}
