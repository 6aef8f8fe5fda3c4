/// Bytes that wait for a reader, up to a limit; then the oldest give way. Grows as needed, and
/// gives the memory back once it is empty.
struct OutputRing {
    /// 1 MiB: a boot's worth of console output for the client that connects late (the reference
    /// keeps as much).
    static let defaultLimit = 1 << 20
    /// What stays allocated while empty: a page, enough for interactive use.
    private static let retained = 4096

    private let limit: Int
    private var storage: [UInt8] = []
    private var first = 0
    private(set) var count = 0

    /// `limit` in bytes, at least 1.
    init(limit: Int = defaultLimit) {
        precondition(limit > 0, "a ring holds at least one byte")
        self.limit = limit
    }

    var isEmpty: Bool { count == 0 }

    mutating func append(_ byte: UInt8) {
        reserve(1)
        if count == limit { drop(1) }
        storage[position(count)] = byte
        count += 1
    }

    mutating func append(_ bytes: [UInt8]) {
        let kept = bytes.suffix(limit)
        reserve(kept.count)
        drop(max(0, count + kept.count - limit))
        let start = position(count)
        let straight = min(kept.count, storage.count - start)
        storage.replaceSubrange(start..<start + straight, with: kept.prefix(straight))
        storage.replaceSubrange(0..<kept.count - straight, with: kept.dropFirst(straight))
        count += kept.count
    }

    /// Takes up to `maximum` of the oldest bytes, in order.
    mutating func take(_ maximum: Int) -> [UInt8] {
        let taken = min(max(0, maximum), count)
        let straight = min(taken, storage.count - first)
        var bytes = Array(storage[first..<first + straight])
        bytes += storage[0..<taken - straight]
        drop(taken)
        if isEmpty, storage.count > Self.retained { storage = [] }
        return bytes
    }

    mutating func removeAll() {
        drop(count)
        storage = []
    }

    private mutating func drop(_ dropped: Int) {
        count -= dropped
        first = count == 0 ? 0 : position(dropped)
    }

    private func position(_ offset: Int) -> Int {
        let index = first + offset
        return index >= storage.count ? index - storage.count : index
    }

    /// Makes room for `more` bytes, as far as the limit allows.
    private mutating func reserve(_ more: Int) {
        let wanted = min(limit, count + more)
        guard wanted > storage.count else { return }
        var size = max(storage.count, min(limit, Self.retained))
        while size < wanted { size = min(limit, size * 2) }
        var grown = [UInt8]()
        grown.reserveCapacity(size)
        for offset in 0..<count { grown.append(storage[position(offset)]) }
        grown.append(contentsOf: repeatElement(0, count: size - count))
        storage = grown
        first = 0
    }
}
