import Glibc
import VMMHost
import VMMStorage

/// A sparse image file in memory: as long as a host's file may be, with as few pages as a small
/// disk.
final class FuzzFile: ImageFile {
    let path = "fuzz"
    let isReadOnly: Bool
    let descriptor: FileDescriptor? = nil
    let alignment = 1

    private var pages: [UInt64: [UInt8]] = [:]
    private var size: UInt64 = 0

    private static let pageSize: UInt64 = 4096
    /// 16 TiB, ext4's.
    static let sizeLimit: UInt64 = 16 << 40
    /// 32 MiB: the host's disk is full.
    private static let pageLimit = 8192

    init(isReadOnly: Bool = false, byteCount: UInt64 = 0) {
        self.isReadOnly = isReadOnly
        size = byteCount
    }

    convenience init(_ bytes: [UInt8], isReadOnly: Bool) {
        self.init(isReadOnly: isReadOnly, byteCount: UInt64(bytes.count))
        put(bytes, at: 0)
    }

    // MARK: as an input

    private static let sectorSize = 512
    /// From here on a sector stands for a run of 1, 2, 4 to 8192 like it, so that a small input
    /// can have a huge table.
    private static let firstRepeat: UInt8 = 0xf2
    /// 4 MiB in sectors: more would make each input slow.
    private static let inputLimit = 8192

    /// A file as `packed` describes it. `isReadOnly` is for what comes afterwards.
    convenience init(_ input: inout FuzzInput, isReadOnly: Bool) {
        self.init(isReadOnly: isReadOnly)
        let size = min(input.next(UInt64.self), Self.sizeLimit)
        var room = Self.inputLimit
        while !input.isEmpty, room > 0 {
            let offset = UInt64(input.next(UInt32.self)) * UInt64(Self.sectorSize)
            let repeats = input.next(UInt8.self)
            let bytes = input.take(Self.sectorSize)
            let run = repeats < Self.firstRepeat ? 1 : 1 << Int(repeats - Self.firstRepeat)
            for index in 0..<min(run, room) {
                put(bytes, at: offset + UInt64(index * Self.sectorSize))
            }
            room -= run
        }
        self.size = size
    }

    /// The size and the sectors that are not all zeros, each with its number and no repeats before
    /// it: an image of many megabytes is a small input.
    var packed: [UInt8] {
        var result = FuzzInput.bytes(size)
        for (number, page) in pages.sorted(by: { $0.key < $1.key }) {
            let perPage = Int(Self.pageSize) / Self.sectorSize
            for index in 0..<perPage {
                let sector = page[index * Self.sectorSize..<(index + 1) * Self.sectorSize]
                guard sector.contains(where: { $0 != 0 }) else { continue }
                result += FuzzInput.bytes(UInt32(number) * UInt32(perPage) + UInt32(index))
                result += [0] + sector
            }
        }
        return result
    }

    /// Changes `count` bytes at `offset`, if the file has them: for checksums.
    func change(at offset: UInt64, count: Int, _ body: (inout [UInt8]) -> Void) {
        guard offset <= size, UInt64(count) <= size - offset else { return }
        var bytes = get(count, at: offset)
        body(&bytes)
        put(bytes, at: offset)
    }

    // MARK: pages

    private func get(_ count: Int, at offset: UInt64) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(count)
        while result.count < count {
            let (page, start, piece) = Self.piece(at: offset, done: result.count, of: count)
            if let bytes = pages[page] {
                result += bytes[start..<start + piece]
            } else {
                result += repeatElement(0, count: piece)
            }
        }
        return result
    }

    private func put(_ bytes: [UInt8], at offset: UInt64) {
        var done = 0
        while done < bytes.count {
            let (page, start, piece) = Self.piece(at: offset, done: done, of: bytes.count)
            pages[page, default: Array(repeating: 0, count: Int(Self.pageSize))]
                .replaceSubrange(start..<start + piece, with: bytes[done..<done + piece])
            done += piece
        }
    }

    private static func piece(
        at offset: UInt64, done: Int, of count: Int
    ) -> (page: UInt64, start: Int, count: Int) {
        let position = offset + UInt64(done)
        let start = Int(position % pageSize)
        return (position / pageSize, start, min(count - done, Int(pageSize) - start))
    }

    private func end(_ offset: UInt64, _ count: UInt64) throws(HostError) -> UInt64 {
        guard !isReadOnly else { throw HostError("write", code: EBADF) }
        let (end, overflows) = offset.addingReportingOverflow(count)
        guard !overflows, end <= Self.sizeLimit else { throw HostError("write", code: EFBIG) }
        return end
    }

    // MARK: ImageFile

    func byteCount() throws(HostError) -> UInt64 { size }

    func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(HostError) -> Int {
        guard offset < size else { return 0 }
        let found = get(Int(min(UInt64(bytes.count), size - offset)), at: offset)
        for index in found.indices { bytes[index] = found[index] }
        return found.count
    }

    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(HostError) {
        let end = try end(offset, UInt64(bytes.count))
        guard pages.count + bytes.count / Int(Self.pageSize) < Self.pageLimit else {
            throw HostError("write", code: ENOSPC)
        }
        put(bytes.indices.map { bytes[$0] }, at: offset)
        if bytes.count > 0 { size = max(size, end) }
    }

    func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(HostError) {
        clear(offset..<(try end(offset, count)))
    }

    func discard(at offset: UInt64, count: UInt64) throws(HostError) {
        clear(offset..<(try end(offset, count)))
    }

    private func clear(_ range: Range<UInt64>) {
        for (page, bytes) in pages {
            let start = page * Self.pageSize
            let part = range.clamped(to: start..<start + Self.pageSize)
            guard !part.isEmpty else { continue }
            if part.count == Int(Self.pageSize) {
                pages[page] = nil
            } else {
                var bytes = bytes
                for index in part { bytes[Int(index - start)] = 0 }
                pages[page] = bytes
            }
        }
    }

    func resize(to byteCount: UInt64) throws(HostError) {
        let end = try end(byteCount, 0)
        clear(end..<max(end, .max / 2))
        size = end
    }

    func synchronize() throws(HostError) {}

    func allocatedRange(from offset: UInt64) throws(HostError) -> Range<UInt64>? {
        let numbers = pages.keys.filter { ($0 + 1) * Self.pageSize > offset }
        guard offset < size, let first = numbers.min() else { return nil }
        let start = max(offset, first * Self.pageSize)
        return start < size ? start..<min(size, (first + 1) * Self.pageSize) : nil
    }
}
