import Synchronization

/// An answer that goes on: lines of JSON, each in a chunk of its own, until the client leaves or
/// somebody ends it. What the client does not take is kept up to a limit; then the answer ends
/// with a last line that says so. Any thread.
package final class HTTPLines: Sendable {
    private struct State {
        /// As it goes over the wire.
        var pending: [UInt8] = []
        var isOver = false
        /// Tells the server that something pends.
        var wake: (@Sendable () -> Void)?
        /// Called once, when nobody reads any more.
        var left: (@Sendable () -> Void)?
    }

    /// What a client may be late by, in bytes: some hundred events.
    static let limit = 64 << 10

    private let isChunked: Bool
    private let lastLine: @Sendable () -> [UInt8]
    private let state = Mutex(State())

    /// For the client of `request`. `lastLine` makes what a client that is too slow gets last.
    package init(for request: HTTPRequest, lastLine: @escaping @Sendable () -> [UInt8]) {
        isChunked = request.takesChunks
        self.lastLine = lastLine
    }

    /// Sends a line, which has no end yet. Once the answer is over it is lost.
    package func add(_ line: [UInt8]) {
        let chunk = framed(line)
        let wake = state.withLock { state -> (@Sendable () -> Void)? in
            guard !state.isOver else { return nil }
            let isFirst = state.pending.isEmpty
            if state.pending.count + chunk.count > Self.limit {
                state.pending += framed(lastLine()) + lastChunk
                state.isOver = true
            } else {
                state.pending += chunk
            }
            return isFirst ? state.wake : nil
        }
        wake?()
    }

    /// No line comes any more.
    package func end() {
        let wake = state.withLock { state -> (@Sendable () -> Void)? in
            guard !state.isOver else { return nil }
            let isFirst = state.pending.isEmpty
            state.pending += lastChunk
            state.isOver = true
            return isFirst ? state.wake : nil
        }
        wake?()
    }

    /// Calls `action` when the client has gone, at once if it has already. Before the answer is
    /// given.
    package func whenLeft(_ action: @escaping @Sendable () -> Void) {
        state.withLock { $0.left = action }
    }

    // MARK: the server's side

    /// What comes before the lines.
    var head: [UInt8] {
        var head = "HTTP/1.1 200 OK\r\nServer: Cloud Hypervisor API\r\nConnection: close\r\n"
        head += "Content-Type: application/x-ndjson\r\nCache-Control: no-store\r\n"
        if isChunked { head += "Transfer-Encoding: chunked\r\n" }
        return Array((head + "\r\n").utf8)
    }

    /// Calls `wake`, on any thread, whenever there is something to `take` after there was nothing.
    func begin(wake: @escaping @Sendable () -> Void) {
        state.withLock { $0.wake = wake }
    }

    /// All that pends; nil when that is nothing, and nothing will come.
    func take() -> [UInt8]? {
        state.withLock { state in
            defer { state.pending = [] }
            return state.pending.isEmpty && state.isOver ? nil : state.pending
        }
    }

    /// The client has gone.
    func leave() {
        let left = state.withLock { state -> (@Sendable () -> Void)? in
            defer { state = State(isOver: true) }
            return state.left
        }
        left?()
    }

    // MARK: chunks

    private func framed(_ line: [UInt8]) -> [UInt8] {
        let text = line + [UInt8(ascii: "\n")]
        guard isChunked else { return text }
        let size = String(text.count, radix: 16)
        return Array("\(size)\r\n".utf8) + text + Array("\r\n".utf8)
    }

    private var lastChunk: [UInt8] { isChunked ? Array("0\r\n\r\n".utf8) : [] }
}
