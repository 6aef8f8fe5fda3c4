import Foundation
import Synchronization
import Testing
import VMMHost
import VMMTestSupport

@testable import VMMServer

/// Answers with method, path and body; `/later` when the test says so, `/never` not at all.
private final class Echo: Sendable {
    private let waiting = Mutex<[HTTPCall]>([])
    let arrived = DispatchSemaphore(value: 0)
    let left = DispatchSemaphore(value: 0)
    let open = Mutex<[HTTPLines]>([])

    func tell(_ text: String) {
        for lines in open.withLock({ $0 }) { lines.add(Array(text.utf8)) }
    }

    func handle(_ call: HTTPCall) {
        switch call.request.path {
        case "/later":
            waiting.withLock { $0.append(call) }
            arrived.signal()
        case "/never": break
        case "/lines":
            let lines = HTTPLines(for: call.request) { Array("too slow".utf8) }
            lines.whenLeft { [left] in left.signal() }
            open.withLock { $0.append(lines) }
            call.answer(lines)
        case "/large":
            call.answer(HTTPResponse(.ok, body: [UInt8](repeating: 0x20, count: 1 << 20)))
        case "/descriptors":
            for descriptor in call.descriptors { descriptor.writeAll("here") }
            call.answer(HTTPResponse(.ok, body: Array("\(call.descriptors.count)".utf8)))
        default:
            let text = "\(call.request.method) \(call.request.path) \(call.request.body.count)"
            call.answer(HTTPResponse(.ok, body: Array(text.utf8)))
        }
    }

    func answerAll() {
        for call in waiting.withLock({ $0 }) { call.answer(HTTPResponse(.noContent)) }
        waiting.withLock { $0 = [] }
    }
}

@Suite("HTTPServer")
final class HTTPServerTests {
    private let directory: TemporaryDirectory
    private let echo = Echo()
    private let server: HTTPServer
    private var path: String { directory.file("api") }

    init() throws {
        directory = try TemporaryDirectory()
        let listener = try UnixListener(
            path: directory.file("api"), backlog: 128, isPrivate: true)
        server = try HTTPServer(listener) { [echo] in echo.handle($0) }
    }

    deinit { server.end() }

    private static func get(_ path: String) -> String { "GET \(path) HTTP/1.1\r\n\r\n" }

    @Test("requests on one connection are answered in their order")
    func order() throws {
        let client = try HTTPClient(path)
        try client.send(Self.get("/1") + Self.get("/2") + Self.get("/3"))
        let answers = client.receive(3)
        #expect(answers.map { $0.suffix(8) } == ["GET /1 0", "GET /2 0", "GET /3 0"])
    }

    @Test("a body may come with a question first, and byte by byte")
    func expecting() throws {
        let client = try HTTPClient(path)
        try client.send("PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        #expect(client.receive() == ["HTTP/1.1 100 Continue\r\n\r\n"])
        for byte in ["a", "b", "c"] { try client.send(byte) }
        #expect(client.receive().first?.hasSuffix("PUT /a 3") == true)
    }

    @Test("a request that takes long holds nobody up")
    func waiting() throws {
        let slow = try HTTPClient(path)
        try slow.send(Self.get("/later") + Self.get("/after"))
        echo.arrived.wait()
        let quick = try HTTPClient(path)
        try quick.send(Self.get("/quick"))
        #expect(quick.receive().count == 1)
        echo.answerAll()
        let answers = slow.receive(2)
        #expect(answers.first?.hasPrefix("HTTP/1.1 204") == true)
        #expect(answers.last?.hasSuffix("GET /after 0") == true)
    }

    @Test("garbage is refused, the connection ends, and others go on")
    func garbage() throws {
        let other = try HTTPClient(path)
        try other.send("GET /a HTT")
        for text in ["\u{0}\u{1}\u{2}\r\n", "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"] {
            let client = try HTTPClient(path)
            try client.send(text)
            #expect(client.receive().first?.hasPrefix("HTTP/1.1 400 Bad Request") == true)
            #expect(client.isOver())
        }
        try other.send("P/1.1\r\n\r\n")
        #expect(other.receive().first?.hasSuffix("GET /a 0") == true)
    }

    @Test("a request that nobody answers is a failure of the server's")
    func unanswered() throws {
        let client = try HTTPClient(path)
        try client.send(Self.get("/never"))
        #expect(client.receive().first?.hasPrefix("HTTP/1.1 500") == true)
    }

    @Test("a client that says so, or speaks the old version, is let go after its answer")
    func closing() throws {
        for text in [
            "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n", "GET /a HTTP/1.0\r\n\r\n",
        ] {
            let client = try HTTPClient(path)
            try client.send(text)
            #expect(client.receive().first?.contains("Connection: close") == true)
            #expect(client.isOver())
        }
    }

    @Test("one that shuts its sending side gets its answer all the same")
    func halfClosed() throws {
        let client = try HTTPClient(path)
        try client.send(Self.get("/later"))
        client.socket.shutDown(.sending)
        echo.arrived.wait()
        echo.answerAll()
        #expect(client.receive().first?.hasPrefix("HTTP/1.1 204") == true)
        #expect(client.isOver())
    }

    @Test("a client may leave at each byte")
    func leaving() throws {
        let text = "PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
        for count in 0...text.count {
            let client = try HTTPClient(path)
            try client.send(String(text.prefix(count)))
        }
        let last = try HTTPClient(path)
        try last.send(Self.get("/a"))
        #expect(last.receive().count == 1)
    }

    @Test("200 requests at the same time")
    func many() throws {
        let clients = try (0..<200).map { _ in try HTTPClient(path) }
        for client in clients { try client.send(Self.get("/later")) }
        for _ in clients { echo.arrived.wait() }
        echo.answerAll()
        let answered = clients.count { $0.receive().first?.hasPrefix("HTTP/1.1 204") == true }
        #expect(answered == 200)
    }

    @Test("idle clients make room for new ones")
    func tooMany() throws {
        let idle = try (0...HTTPService.clientLimit).map { _ in try HTTPClient(path) }
        for _ in 0..<10 {
            let client = try HTTPClient(path)
            try client.send(Self.get("/a"))
            #expect(client.receive().count == 1)
        }
        #expect(idle[0].isOver())
    }

    @Test("clients that never finish a request make room for those that do")
    func halfRequests() throws {
        let halves = try (0...HTTPService.clientLimit).map { _ in try HTTPClient(path) }
        for client in halves { try client.send("GET /a HTT") }
        for _ in 0..<10 {
            let client = try HTTPClient(path)
            try client.send(Self.get("/a"))
            #expect(client.receive().count == 1)
        }
        #expect(halves[0].isOver())
    }

    @Test("clients that do not take their answers make room for those that do")
    func answersNotTaken() throws {
        let count = 2 * HTTPService.byteLimit >> 20
        let lazy = try (0..<count).map { _ in try HTTPClient(path) }
        for client in lazy { try client.send(Self.get("/large")) }
        let last = try HTTPClient(path)
        try last.send(Self.get("/large"))
        #expect(last.receive().count == 1)
        // Each of the others was let go or gets all of its answer.
        let answered = lazy.count { $0.receive().count == 1 }
        #expect(answered > 0 && answered < count)
    }

    @Test("descriptors of requests that never end are bounded together")
    func descriptorsHeld() throws {
        let (near, far) = try UnixSocket.streamPair()
        let count = HTTPService.descriptorLimit / FileDescriptor.rightsLimit + 2
        let clients = try (0..<count).map { _ in try HTTPClient(path) }
        let all = [FileDescriptor](repeating: far, count: FileDescriptor.rightsLimit)
        for client in clients {
            try client.send("PUT /descriptors HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", all)
        }
        let answers = clients.dropFirst().map { $0.receive().first ?? "" }
        #expect(answers.allSatisfy { $0.hasPrefix("HTTP/1.1 503") })
        try clients[0].send("de")
        #expect(clients[0].receive().first?.hasSuffix("\(FileDescriptor.rightsLimit)") == true)
        #expect(near.isReady(.readable))
    }

    @Test("bodies that never end are bounded together")
    func bodies() throws {
        let limit = HTTPParser.Limits.bodyByteCount
        let count = HTTPService.byteLimit / limit
        let head = "PUT /a HTTP/1.1\r\nContent-Length: \(limit)\r\n\r\n"
        let clients = try (0..<count).map { _ in try HTTPClient(path) }
        // Each is served once, so that what follows is known to be there.
        for client in clients {
            try client.send(Self.get("/a") + head + "abc")
            _ = client.receive()
        }
        let last = try HTTPClient(path)
        try last.send(head + "abc")
        #expect(last.receive().first?.hasPrefix("HTTP/1.1 503") == true)
    }

    @Test("descriptors come with the request they were sent with")
    func descriptors() throws {
        let (near, far) = try UnixSocket.streamPair()
        let client = try HTTPClient(path)
        try client.send(Self.get("/descriptors"), [far, far])
        #expect(client.receive().first?.hasSuffix("2") == true)
        try client.send(Self.get("/descriptors"))
        #expect(client.receive().first?.hasSuffix("0") == true)
        var bytes: [UInt8] = []
        #expect(near.read(into: &bytes, limit: 100) == .moved(8))
    }

    private static func head(_ client: HTTPClient) -> String {
        client.receive().first ?? ""
    }

    @Test("an answer that goes on comes a line a chunk, until it is ended")
    func lines() throws {
        let client = try HTTPClient(path)
        try client.send(Self.get("/lines"))
        #expect(Self.head(client).contains("Transfer-Encoding: chunked"))
        echo.tell("one")
        echo.tell("two")
        for lines in echo.open.withLock({ $0 }) { lines.end() }
        #expect(client.rest() == "4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n")
        echo.left.wait()
    }

    @Test("the old version of HTTP gets the lines alone")
    func plainLines() throws {
        let client = try HTTPClient(path)
        try client.send("GET /lines HTTP/1.0\r\n\r\n")
        #expect(!Self.head(client).contains("chunked"))
        echo.tell("one")
        server.end()
        #expect(client.rest() == "one\n")
    }

    @Test("a reader that is too slow is cut off, and told so; others are not held up")
    func slowReader() throws {
        let slow = try HTTPClient(path)
        try slow.send(Self.get("/lines"))
        #expect(Self.head(slow).contains("200 OK"))
        // Sockets hold some hundred KiB; the rest is what the server is to keep at most.
        let line = String(repeating: "x", count: 1000)
        for _ in 0..<2000 { echo.tell(line) }
        let quick = try HTTPClient(path)
        try quick.send(Self.get("/a"))
        #expect(quick.receive().count == 1)
        let text = slow.rest()
        #expect(text.hasSuffix("9\r\ntoo slow\n\r\n0\r\n\r\n"))
        #expect(text.utf8.count < 1 << 20)
        echo.left.wait()
    }

    @Test("a reader that leaves is noticed, though nothing is told")
    func leavingReader() throws {
        do {
            let client = try HTTPClient(path)
            try client.send(Self.get("/lines"))
            #expect(Self.head(client).contains("200 OK"))
        }
        echo.left.wait()
    }

    @Test("a gigabyte is refused before it comes, and a thousand fields are too many")
    func huge() throws {
        let fields = (0..<1000).map { "X-\($0): a\r\n" }.joined()
        for (text, status) in [
            ("PUT /a HTTP/1.1\r\nContent-Length: 1073741824\r\n\r\n", "413"),
            ("PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n", "413"),
            ("GET /a HTTP/1.1\r\n" + fields + "\r\n", "431"),
            ("GET /" + String(repeating: "a", count: 100_000), "431"),
        ] {
            let client = try HTTPClient(path)
            try client.send(text)
            #expect(client.receive().first?.hasPrefix("HTTP/1.1 \(status)") == true)
        }
    }

    @Test("the socket is the owner's alone, and goes with the server")
    func file() throws {
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions]
        #expect(mode as? Int == 0o600)
        server.end()
        #expect(!FileManager.default.fileExists(atPath: path))
    }
}
