import VMMHost

/// The "Dynamic Disk Header" of a VHD: where its blocks' table lies.
struct VHDDynamicHeader {
    static let byteCount = 1024
    private static let cookie = "cxsparse"
    /// 4 Mi blocks: 2 TiB in blocks of 512 KiB, the smallest that anybody makes.
    private static let blockLimit: UInt64 = 4 << 20
    /// What an entry of the table says of a block without room.
    static let absent: UInt32 = .max

    let bytes: [UInt8]
    var tableOffset: UInt64 { bytes.bigEndian(UInt64.self, at: 16) }
    var entryCount: UInt64 { UInt64(bytes.bigEndian(UInt32.self, at: 28)) }
    /// The largest block, in bytes: each look at a block that is not full reads a bit for each of
    /// its sectors. Everybody makes blocks of 512 KiB or 2 MiB.
    private static let blockByteLimit: UInt64 = 256 << 20

    /// How much of the guest's disk a block holds, a power of two.
    var blockByteCount: UInt64 { UInt64(bytes.bigEndian(UInt32.self, at: 32)) }
    /// The bits in front of a block's bytes, one for each sector, in whole sectors.
    var bitmapByteCount: UInt64 { (blockByteCount / 512).roundedUp(to: 4096) / 8 }
    /// Where the first block may lie: behind the table.
    var tableEnd: UInt64 { tableOffset + (entryCount * 4).roundedUp(to: 512) }

    init(of file: any ImageFile, _ footer: VHDFooter, end: UInt64) throws(ImageError) {
        let found = try hosted { () throws(HostError) in
            try file.bytes(at: footer.headerOffset, count: Self.byteCount)
        }
        guard let found, found.holds(Self.cookie, at: 0),
            found.bigEndian(UInt32.self, at: 36) == VHDFooter.checksum(found, at: 36)
        else { throw .corrupt("its dynamic header is missing or broken") }
        bytes = found
        let block = blockByteCount
        guard block >= 4096, block.nonzeroBitCount == 1 else {
            throw .corrupt("its blocks have \(block) bytes, which is no power of two from 4096 on")
        }
        guard block <= Self.blockByteLimit else {
            throw .unsupported("blocks of \(block) bytes")
        }
        let needed = (footer.diskByteCount - 1) / block + 1
        guard needed <= Self.blockLimit else {
            throw .unsupported("more than \(Self.blockLimit) blocks")
        }
        guard entryCount >= needed, tableOffset % 512 == 0, tableOffset >= 512,
            tableOffset <= end, entryCount * 4 <= end - tableOffset, tableEnd <= end
        else { throw .corrupt("its block table is too short or lies beyond the file's end") }
    }

    init(diskByteCount: UInt64, blockByteCount: UInt64) throws(ImageError) {
        guard (4096...Self.blockByteLimit).contains(blockByteCount),
            blockByteCount.nonzeroBitCount == 1,
            (diskByteCount - 1) / blockByteCount < Self.blockLimit
        else {
            throw .invalid("a VHD's blocks are a power of two from 4 KiB to 256 MiB, at most 4 Mi")
        }
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.store(Self.cookie.utf8, at: 0)
        bytes.storeBigEndian(UInt64.max, at: 8)
        bytes.storeBigEndian(UInt64(VHDFooter.byteCount + Self.byteCount), at: 16)
        bytes.storeBigEndian(0x0001_0000 as UInt32, at: 24)
        bytes.storeBigEndian(UInt32((diskByteCount - 1) / blockByteCount + 1), at: 28)
        bytes.storeBigEndian(UInt32(blockByteCount), at: 32)
        bytes.storeBigEndian(VHDFooter.checksum(bytes, at: 36), at: 36)
        self.bytes = bytes
    }

    /// A table without a block.
    func writeEmptyTable(on file: any ImageFile) throws(HostError) {
        let piece = [UInt8](repeating: 0xff, count: 64 << 10)
        var offset = tableOffset
        while offset < tableEnd {
            let count = min(piece.count, Int(tableEnd - offset))
            try file.write(piece.span.extracting(..<count), at: offset)
            offset += UInt64(count)
        }
    }
}
