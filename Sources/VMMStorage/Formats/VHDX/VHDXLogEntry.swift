/// One entry of a VHDX's log (MS-VHDX 2.3.1): changes to the file, valid together or not at all.
struct VHDXLogEntry {
    static let sectorByteCount = 4096
    static let headerByteCount = 64
    private static let descriptorByteCount = 32

    struct Change: Equatable {
        /// A multiple of 4096.
        let offset: UInt64
        /// A sector to write; nil: zeros.
        let sector: [UInt8]?
        let count: UInt64
    }

    /// What the first bytes of an entry say of it, before it is known to be valid.
    struct Outline {
        let byteCount: Int
        let sequence: UInt64
        /// Where in the log the oldest entry begins that has to be applied with this one.
        let tail: UInt64

        /// nil: not the beginning of an entry of the log `id` of `logByteCount` bytes.
        init?(_ bytes: [UInt8], _ id: VHDXIdentifier, logByteCount: UInt64) {
            guard bytes.holds("loge", at: 0), VHDXIdentifier(of: bytes, at: 32) == id else {
                return nil
            }
            byteCount = Int(bytes.littleEndian(UInt32.self, at: 8))
            tail = UInt64(bytes.littleEndian(UInt32.self, at: 12))
            sequence = bytes.littleEndian(UInt64.self, at: 16)
            let sector = UInt64(sectorByteCount)
            guard byteCount > 0, UInt64(byteCount) <= logByteCount, tail < logByteCount,
                UInt64(byteCount) % sector == 0, tail % sector == 0, sequence > 0, sequence < .max
            else { return nil }
        }
    }

    /// How long the file was, for sure, when the entry was written.
    let flushedEnd: UInt64
    /// How long the file has to be for what the entry says.
    let lastEnd: UInt64
    let changes: [Change]

    /// nil: the entry is not all there, or says what no entry may.
    init?(_ bytes: [UInt8]) {
        guard CRC32C.isSealed(bytes, at: 4) else { return nil }
        let sequence = bytes.littleEndian(UInt64.self, at: 16)
        let count = Int(bytes.littleEndian(UInt32.self, at: 24))
        guard count <= bytes.count / Self.descriptorByteCount else { return nil }
        var sector = Self.firstSector(descriptors: count)
        guard sector <= bytes.count else { return nil }
        flushedEnd = bytes.littleEndian(UInt64.self, at: 48)
        lastEnd = bytes.littleEndian(UInt64.self, at: 56)
        var changes: [Change] = []
        for index in 0..<count {
            let start = Self.headerByteCount + Self.descriptorByteCount * index
            let offset = bytes.littleEndian(UInt64.self, at: start + 16)
            guard bytes.littleEndian(UInt64.self, at: start + 24) == sequence,
                offset % UInt64(Self.sectorByteCount) == 0
            else { return nil }
            if bytes.holds("zero", at: start) {
                let length = bytes.littleEndian(UInt64.self, at: start + 8)
                guard length % UInt64(Self.sectorByteCount) == 0 else { return nil }
                changes.append(Change(offset: offset, sector: nil, count: length))
                continue
            }
            guard bytes.holds("desc", at: start), bytes.count >= sector + Self.sectorByteCount,
                let data = Self.data(bytes, sector, descriptor: start, sequence)
            else { return nil }
            changes.append(
                Change(offset: offset, sector: data, count: UInt64(Self.sectorByteCount)))
            sector += Self.sectorByteCount
        }
        guard sector == bytes.count else { return nil }
        self.changes = changes
    }

    /// The sector that a descriptor stands for: its ends are kept in the descriptor, where the
    /// entry has its own marks.
    private static func data(
        _ bytes: [UInt8], _ start: Int, descriptor: Int, _ sequence: UInt64
    ) -> [UInt8]? {
        let end = start + sectorByteCount
        let high = bytes.littleEndian(UInt32.self, at: start + 4)
        let low = bytes.littleEndian(UInt32.self, at: end - 4)
        guard bytes.holds("data", at: start), UInt64(high) << 32 | UInt64(low) == sequence else {
            return nil
        }
        return Array(
            bytes[descriptor + 8..<descriptor + 16] + bytes[start + 8..<end - 4]
                + bytes[descriptor + 4..<descriptor + 8])
    }

    /// Where an entry's data begin, in bytes.
    private static func firstSector(descriptors: Int) -> Int {
        let count = headerByteCount + descriptors * descriptorByteCount
        return (count + sectorByteCount - 1) / sectorByteCount * sectorByteCount
    }

    /// An entry that says to write `pages`, of one sector each, and is its own tail at `position`.
    static func bytes(
        _ pages: [(offset: UInt64, bytes: [UInt8])], _ id: VHDXIdentifier, sequence: UInt64,
        position: UInt64, end: UInt64
    ) -> [UInt8] {
        let first = firstSector(descriptors: pages.count)
        var bytes = [UInt8](repeating: 0, count: first + pages.count * sectorByteCount)
        bytes.store("loge".utf8, at: 0)
        bytes.storeLittleEndian(UInt32(bytes.count), at: 8)
        bytes.storeLittleEndian(UInt32(position), at: 12)
        bytes.storeLittleEndian(sequence, at: 16)
        bytes.storeLittleEndian(UInt32(pages.count), at: 24)
        id.store(in: &bytes, at: 32)
        bytes.storeLittleEndian(end, at: 48)
        bytes.storeLittleEndian(end, at: 56)
        for (index, page) in pages.enumerated() {
            let start = headerByteCount + descriptorByteCount * index
            bytes.store("desc".utf8, at: start)
            bytes.store(page.bytes.suffix(4), at: start + 4)
            bytes.store(page.bytes.prefix(8), at: start + 8)
            bytes.storeLittleEndian(page.offset, at: start + 16)
            bytes.storeLittleEndian(sequence, at: start + 24)
            let sector = first + sectorByteCount * index
            bytes.store("data".utf8, at: sector)
            bytes.storeLittleEndian(UInt32(truncatingIfNeeded: sequence >> 32), at: sector + 4)
            bytes.store(page.bytes[8..<sectorByteCount - 4], at: sector + 8)
            bytes.storeLittleEndian(
                UInt32(truncatingIfNeeded: sequence), at: sector + sectorByteCount - 4)
        }
        CRC32C.seal(&bytes, at: 4)
        return bytes
    }
}
