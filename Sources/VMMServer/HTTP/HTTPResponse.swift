import VMMBase

/// The statuses that this server gives (RFC 9110, 15).
package enum HTTPStatus: Int, Sendable {
    case ok = 200
    case noContent = 204
    case badRequest = 400
    case notFound = 404
    case conflict = 409
    case contentTooLarge = 413
    case expectationFailed = 417
    case tooManyRequests = 429
    case headerFieldsTooLarge = 431
    case internalServerError = 500
    case notImplemented = 501
    case serviceUnavailable = 503
    case versionNotSupported = 505

    /// The words beside the number, which nobody reads but people.
    var phrase: String {
        switch self {
        case .ok: "OK"
        case .noContent: "No Content"
        case .badRequest: "Bad Request"
        case .notFound: "Not Found"
        case .conflict: "Conflict"
        case .contentTooLarge: "Content Too Large"
        case .expectationFailed: "Expectation Failed"
        case .tooManyRequests: "Too Many Requests"
        case .headerFieldsTooLarge: "Request Header Fields Too Large"
        case .internalServerError: "Internal Server Error"
        case .notImplemented: "Not Implemented"
        case .serviceUnavailable: "Service Unavailable"
        case .versionNotSupported: "HTTP Version Not Supported"
        }
    }
}

/// A response whose body, where it has one, is JSON.
package struct HTTPResponse: Equatable, Sendable {
    package let status: HTTPStatus
    package let body: [UInt8]

    package init(_ status: HTTPStatus, body: [UInt8] = []) {
        self.status = status
        self.body = body
    }

    /// A failure as Cloud Hypervisor tells it: a list of sentences, the outermost first.
    package init(_ status: HTTPStatus, chain: [String]) {
        self.init(status, body: JSONValue.array(chain.map { .string($0) }).text())
    }

    init(_ error: HTTPError) {
        self.init(error.status, chain: [error.status.phrase, error.reason])
    }

    /// What goes over the wire.
    package func bytes(keepsAlive: Bool) -> [UInt8] {
        var head = "HTTP/1.1 \(status.rawValue) \(status.phrase)\r\n"
        head += "Server: Cloud Hypervisor API\r\n"
        head += "Connection: \(keepsAlive ? "keep-alive" : "close")\r\n"
        // Without content there is no length either (RFC 9110, 8.6).
        if status != .noContent {
            head += "Content-Type: application/json\r\nContent-Length: \(body.count)\r\n"
        }
        return Array((head + "\r\n").utf8) + body
    }

    /// Tells a client that waits with its body to send it.
    static let goOn = Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)
}
