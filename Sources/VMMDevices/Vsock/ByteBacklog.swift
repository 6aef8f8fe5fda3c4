import VMMHost

/// Bytes that a socket has not taken yet, oldest first. Takes memory only while there are some.
struct ByteBacklog {
    /// Buffers of the largest size that nobody uses: a reader that stops and goes on again and
    /// again does not cost the largest allocation each time.
    struct Pool {
        fileprivate static let byteCount = 256 << 10
        /// 2 MiB, for as many connections at a time.
        private static let most = 8
        private var spare: [[UInt8]] = []

        /// A buffer of exactly `count` bytes: a small backlog must not come to hold a large one.
        fileprivate mutating func take(_ count: Int) -> [UInt8] {
            let kept = count == Self.byteCount ? spare.popLast() : nil
            return kept ?? [UInt8](repeating: 0, count: count)
        }

        fileprivate mutating func giveBack(_ buffer: consuming [UInt8]) {
            if buffer.count == Self.byteCount, spare.count < Self.most { spare.append(buffer) }
        }
    }

    /// A first buffer holds a page.
    private static let least = 4096

    /// A power of two in size, or empty.
    private var storage: [UInt8] = []
    private var first = 0
    private(set) var count = 0

    /// What it takes of the host's memory, in bytes.
    var capacity: Int { storage.count }

    var isEmpty: Bool { count == 0 }

    /// Adds all bytes of `vector`.
    mutating func append(_ vector: GuestVector, _ pool: inout Pool) {
        let added = Int(clamping: vector.byteCount)
        reserve(count + added, &pool)
        var rest = added
        while rest > 0 {
            let start = (first + count) & (storage.count - 1)
            let part = min(rest, storage.count - start)
            let copied = vector.copyOut(over: &storage, start..<start + part)
            vector.removeFirst(copied)
            count += copied
            rest -= part
        }
    }

    /// Sends to a socket until it takes no more, at most all; how many bytes it took, and what it
    /// said last.
    mutating func send(
        to socket: FileDescriptor, _ pool: inout Pool
    ) -> (sent: Int, last: FileDescriptor.Transfer) {
        var sent = 0
        while count > 0 {
            let part = min(count, storage.count - first)
            let result = socket.send(storage, first..<first + part)
            guard case .moved(let moved) = result else { return (sent, result) }
            first = (first + moved) & (storage.count - 1)
            count -= moved
            sent += moved
        }
        removeAll(&pool)
        return (sent, .moved(sent))
    }

    /// Forgets all bytes.
    mutating func removeAll(_ pool: inout Pool) {
        count = 0
        first = 0
        pool.giveBack(storage)
        storage = []
    }

    private mutating func reserve(_ needed: Int, _ pool: inout Pool) {
        guard needed > storage.count else { return }
        var size = max(storage.count, Self.least)
        while size < needed { size *= 2 }
        var larger = pool.take(size)
        let straight = min(count, storage.count - first)
        larger.replaceSubrange(0..<straight, with: storage[first..<first + straight])
        larger.replaceSubrange(straight..<count, with: storage[0..<count - straight])
        storage = larger
        first = 0
    }
}
