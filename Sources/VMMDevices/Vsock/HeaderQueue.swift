/// Refusals of packets that belong to no connection, oldest first, up to a fixed number.
struct HeaderQueue {
    private var headers: [VsockHeader]
    private var first = 0
    private(set) var count = 0

    init(capacity: Int) {
        headers = Array(repeating: VsockHeader(), count: capacity)
    }

    var isFull: Bool { count == headers.count }

    /// Adds a header; the queue is not full.
    mutating func append(_ header: VsockHeader) {
        precondition(!isFull, "a full queue is asked for before")
        headers[(first + count) % headers.count] = header
        count += 1
    }

    mutating func popFirst() -> VsockHeader? {
        guard count > 0 else { return nil }
        let header = headers[first]
        first = (first + 1) % headers.count
        count -= 1
        return header
    }
}
