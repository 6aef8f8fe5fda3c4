import VMMHost

/// Where the parts of a VHDX lie and what its disk is like: the region table (MS-VHDX 2.2.3) and
/// the metadata (2.6).
struct VHDXLayout {
    static let alignment: UInt64 = 1 << 20
    /// 64 TiB, by the specification.
    static let diskLimit: UInt64 = 64 << 40
    static let blockLimits: ClosedRange<UInt64> = 1 << 20...256 << 20
    static let sectorSizes: [UInt64] = [512, 4096]
    static let entryByteCount: UInt64 = 8

    private(set) var table: Range<UInt64> = 0..<0
    private(set) var metadata: Range<UInt64> = 0..<0
    let blockByteCount: UInt64
    let diskByteCount: UInt64
    let logicalSectorByteCount: UInt64

    var blockCount: UInt64 { (diskByteCount - 1) / blockByteCount + 1 }
    /// After so many blocks the table has an entry for a bitmap, which only an image with a parent
    /// uses.
    private var chunkRatio: UInt64 { (logicalSectorByteCount << 23) / blockByteCount }
    var tableByteCount: UInt64 { entryPosition(blockCount - 1) + Self.entryByteCount }

    /// Where in the table the block's entry stands, in bytes.
    func entryPosition(_ block: UInt64) -> UInt64 {
        (block + block / chunkRatio) * Self.entryByteCount
    }

    /// The first block whose entry stands at `position` or behind it. The last entry of each chunk
    /// is no block's.
    func firstBlock(from position: UInt64) -> UInt64 {
        let entry = position / Self.entryByteCount
        return entry - entry / (chunkRatio + 1)
    }

    init(diskByteCount: UInt64, blockByteCount: UInt64, logicalSectorByteCount: UInt64)
        throws(ImageError)
    {
        guard Self.blockLimits.contains(blockByteCount), blockByteCount.nonzeroBitCount == 1 else {
            throw .corrupt("its blocks have \(blockByteCount) bytes")
        }
        guard Self.sectorSizes.contains(logicalSectorByteCount) else {
            throw .corrupt("its sectors have \(logicalSectorByteCount) bytes")
        }
        guard diskByteCount > 0, diskByteCount <= Self.diskLimit,
            diskByteCount % logicalSectorByteCount == 0
        else { throw .corrupt("its disk has \(diskByteCount) bytes") }
        self.diskByteCount = diskByteCount
        self.blockByteCount = blockByteCount
        self.logicalSectorByteCount = logicalSectorByteCount
    }

    init(of file: any ImageFile, log: Range<UInt64>) throws(ImageError) {
        let end = try hosted { () throws(HostError) in try file.byteCount() }
        let regions = try VHDXRegions(of: file)
        try self.init(metadata: regions.metadata, of: file)
        table = regions.table
        metadata = regions.metadata
        guard tableByteCount <= UInt64(table.count), table.lowerBound + tableByteCount <= end,
            metadata.lowerBound < end
        else { throw .corrupt("its block table is too short or lies beyond the file's end") }
        let parts = [0..<Self.alignment, log, table, metadata]
        for (index, part) in parts.enumerated() {
            guard !parts.dropFirst(index + 1).contains(where: part.overlaps) else {
                throw .corrupt("its log, its block table and its metadata overlap")
            }
        }
    }

    // MARK: metadata

    private enum Item {
        static let fileParameters = VHDXIdentifier(
            0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b)
        static let diskSize = VHDXIdentifier(
            0x2fa5_4224, 0xcd1b, 0x4876, 0xb211_5dbe_d83b_f4b8)
        static let page83 = VHDXIdentifier(0xbeca_12ab, 0xb2e6, 0x4523, 0x93ef_c309_e000_c746)
        static let logicalSector = VHDXIdentifier(
            0x8141_bf1d, 0xa96f, 0x4709, 0xba47_f233_a8fa_ab5f)
        static let physicalSector = VHDXIdentifier(
            0xcda3_48c7, 0x445d, 0x4471, 0x9cc9_e988_5251_c556)
        static let parentLocator = VHDXIdentifier(
            0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c)

        static let sizes = [
            fileParameters: 8, diskSize: 8, page83: 16, logicalSector: 4, physicalSector: 4,
        ]
        static let isUser: UInt32 = 1
        static let isRequired: UInt32 = 4
    }

    private static let itemTableByteCount = 64 << 10
    private static let itemLimit = 2047
    private static let parentName = "a parent image (a differencing VHDX)"

    private init(metadata: Range<UInt64>, of file: any ImageFile) throws(ImageError) {
        let found = try hosted { () throws(HostError) in
            try file.bytes(at: metadata.lowerBound, count: Self.itemTableByteCount)
        }
        guard let found, found.holds("metadata", at: 0) else {
            throw .corrupt("its metadata are missing")
        }
        let count = Int(found.littleEndian(UInt16.self, at: 10))
        guard count <= Self.itemLimit else { throw .corrupt("its metadata have \(count) items") }
        var items: [VHDXIdentifier: [UInt8]] = [:]
        for index in 0..<count {
            let start = 32 + 32 * index
            let id = VHDXIdentifier(of: found, at: start)
            let flags = found.littleEndian(UInt32.self, at: start + 24)
            guard flags & Item.isUser == 0, let size = Item.sizes[id] else {
                if id == Item.parentLocator { throw .unsupported(Self.parentName) }
                guard flags & Item.isRequired == 0 else {
                    throw .unsupported("a metadata item that it calls required")
                }
                continue
            }
            let offset = UInt64(found.littleEndian(UInt32.self, at: start + 16))
            guard offset >= UInt64(Self.itemTableByteCount),
                offset + UInt64(size) <= UInt64(metadata.count), items[id] == nil
            else { throw .corrupt("an item of its metadata lies outside or is there twice") }
            items[id] = try hosted { () throws(HostError) in
                try file.bytes(at: metadata.lowerBound + offset, count: size)
            }
        }
        guard let parameters = items[Item.fileParameters], let size = items[Item.diskSize],
            let sector = items[Item.logicalSector]
        else { throw .corrupt("its metadata lack a size") }
        guard parameters.littleEndian(UInt32.self, at: 4) & 2 == 0 else {
            throw .unsupported(Self.parentName)
        }
        try self.init(
            diskByteCount: size.littleEndian(UInt64.self, at: 0),
            blockByteCount: UInt64(parameters.littleEndian(UInt32.self, at: 0)),
            logicalSectorByteCount: UInt64(sector.littleEndian(UInt32.self, at: 0)))
    }

    /// The metadata region of a new file, as far as it is not zeros.
    func metadataBytes(isFixed: Bool) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.itemTableByteCount + 64)
        bytes.store("metadata".utf8, at: 0)
        bytes.storeLittleEndian(UInt16(Item.sizes.count), at: 10)
        let (disk, file): (UInt32, UInt32) = (6, 4)
        let items: [(id: VHDXIdentifier, flags: UInt32)] = [
            (Item.fileParameters, file), (Item.diskSize, disk), (Item.page83, disk),
            (Item.logicalSector, disk), (Item.physicalSector, disk),
        ]
        var offset = Self.itemTableByteCount
        for (index, item) in items.enumerated() {
            let start = 32 + 32 * index
            let size = Item.sizes[item.id] ?? 0
            item.id.store(in: &bytes, at: start)
            bytes.storeLittleEndian(UInt32(offset), at: start + 16)
            bytes.storeLittleEndian(UInt32(size), at: start + 20)
            bytes.storeLittleEndian(item.flags, at: start + 24)
            switch item.id {
            case Item.fileParameters:
                bytes.storeLittleEndian(UInt32(blockByteCount), at: offset)
                // "LeaveBlocksAllocated": the file is to stay fixed.
                bytes.storeLittleEndian(isFixed ? 1 : 0 as UInt32, at: offset + 4)
            case Item.diskSize: bytes.storeLittleEndian(diskByteCount, at: offset)
            case Item.page83: VHDXIdentifier.random().store(in: &bytes, at: offset)
            case Item.logicalSector:
                bytes.storeLittleEndian(UInt32(logicalSectorByteCount), at: offset)
            default: bytes.storeLittleEndian(4096 as UInt32, at: offset)
            }
            offset += size
        }
        return bytes
    }
}
