/// A request as a client sent it (RFC 9112), as far as a server of an API needs it.
package struct HTTPRequest: Equatable, Sendable {
    package var method: String
    /// From the first slash on, without a query; not decoded.
    package var path: String
    package var body: [UInt8]
    /// Whether the connection serves another request after this one.
    package var keepsAlive: Bool
    /// Whether an answer may come in chunks.
    package var takesChunks: Bool

    package init(
        method: String, path: String, body: [UInt8] = [], keepsAlive: Bool = true,
        takesChunks: Bool = true
    ) {
        self.method = method
        self.path = path
        self.body = body
        self.keepsAlive = keepsAlive
        self.takesChunks = takesChunks
    }
}

/// What is wrong with a request that cannot be understood. The connection ends with it, for nobody
/// knows where the next request would begin.
package struct HTTPError: Error, Equatable, Sendable {
    package let status: HTTPStatus
    /// One sentence for the client.
    package let reason: String

    package init(_ status: HTTPStatus, _ reason: String) {
        self.status = status
        self.reason = reason
    }
}
