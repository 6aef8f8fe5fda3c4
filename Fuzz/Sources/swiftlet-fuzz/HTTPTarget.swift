import VMMServer

/// The first byte says how the rest, a stream of requests, is cut. However it is cut, the same
/// requests must be found, or the same mistake.
enum HTTPTarget: FuzzTarget {
    static let name = "http"

    static let words =
        [
            "GET ", "PUT ", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "/api/v1/vm.info", "http://",
            "Content-Length: ", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n",
            "Connection: close\r\n", "Connection: keep-alive\r\n", "\r\n\r\n", "0\r\n\r\n",
            "4194304", "4194305", "18446744073709551616", "ffffffff",
        ].map { Array($0.utf8) }

    static func seeds() -> [[UInt8]] {
        [
            "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}PUT /b HTTP/1.1\r\n\r\n",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ].map { [3] + Array($0.utf8) }
    }

    private struct Outcome: Equatable {
        var requests: [HTTPRequest] = []
        var error: HTTPError?
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let step = max(1, Int(input.next(UInt8.self)))
        let bytes = input.takeAll()
        let whole = parse(bytes, step: .max)
        let pieces = parse(bytes, step: step)
        precondition(whole == pieces, "the cuts of a stream have changed its requests")
    }

    private static func parse(_ bytes: [UInt8], step: Int) -> Outcome {
        var outcome = Outcome()
        var parser = HTTPParser()
        var start = 0
        do throws(HTTPError) {
            while start < bytes.count {
                let end = step < bytes.count - start ? start + step : bytes.count
                let piece = Array(bytes[start..<end])
                start = end
                var offset = 0
                while let request = try parser.take(piece, from: &offset) {
                    outcome.requests.append(request)
                    _ = HTTPResponse(.ok, body: request.body).bytes(keepsAlive: true)
                }
                precondition(offset == piece.count, "bytes were left behind")
                precondition(
                    parser.bodyByteCount <= HTTPParser.Limits.bodyByteCount, "too much is kept")
                _ = parser.takeExpectation()
            }
        } catch {
            outcome.error = error
        }
        return outcome
    }
}
