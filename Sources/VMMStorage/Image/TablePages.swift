import VMMHost

/// A table in a file, of which a bounded number of pages is in memory; changed ones stay there
/// until their owner has put them into the file.
struct TablePages {
    static let pageByteCount = 4096
    /// 4 MiB of pages, with entries of eight bytes for blocks of 32 MiB the table of 16 TiB.
    private static let pageLimit = 1024

    private let file: any ImageFile
    private let offset: UInt64
    /// In bytes.
    private let count: UInt64
    private var pages: [UInt64: [UInt8]] = [:]
    private var changed: Set<UInt64> = []

    /// The table of `count` bytes at `offset`; both are known to lie inside the file.
    init(_ file: any ImageFile, offset: UInt64, count: UInt64) {
        self.file = file
        self.offset = offset
        self.count = count
    }

    /// The page with the byte `position` of the table, and the byte's place in it.
    mutating func page(at position: UInt64) throws(ImageError) -> (bytes: [UInt8], index: Int) {
        precondition(position < count, "a table is asked for its own bytes")
        let number = position / UInt64(Self.pageByteCount)
        let index = Int(position % UInt64(Self.pageByteCount))
        if let bytes = pages[number] { return (bytes, index) }
        if pages.count >= Self.pageLimit { pages = pages.filter { changed.contains($0.key) } }
        let start = number * UInt64(Self.pageByteCount)
        let size = Int(min(UInt64(Self.pageByteCount), count - start))
        let found = try hosted { () throws(HostError) in
            try file.bytes(at: offset + start, count: size)
        }
        guard let found else { throw .corrupt("the file ends inside its block table") }
        pages[number] = found
        return (found, index)
    }

    /// Changes the bytes from `position` on, which lie in one page.
    mutating func store(_ bytes: [UInt8], at position: UInt64) throws(ImageError) {
        let index = try page(at: position).index
        let number = position / UInt64(Self.pageByteCount)
        pages[number]?.store(bytes, at: index)
        changed.insert(number)
    }

    var changedCount: Int { changed.count }

    /// What has to be written, and where in the file: at most `limit` pages, in the file's order.
    func changes(limit: Int) -> [(offset: UInt64, bytes: [UInt8])] {
        changed.sorted().prefix(limit).compactMap { number in
            pages[number].map { (offset + number * UInt64(Self.pageByteCount), $0) }
        }
    }

    /// The file holds the first `count` changes now.
    mutating func settle(_ count: Int) {
        for number in changed.sorted().prefix(count) { changed.remove(number) }
    }
}
