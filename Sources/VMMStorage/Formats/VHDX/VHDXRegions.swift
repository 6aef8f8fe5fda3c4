import VMMHost

/// The region table, of which a file has two (MS-VHDX 2.2.3): where the block table and the
/// metadata lie.
struct VHDXRegions {
    let table: Range<UInt64>
    let metadata: Range<UInt64>

    private static let byteCount = 64 << 10
    private static let offsets: [UInt64] = [192 << 10, 256 << 10]
    private static let entryLimit = 2047
    private static let tableID = VHDXIdentifier(0x2dc2_7766, 0xf623, 0x4200, 0x9d64_115e_9bfd_4a08)
    private static let metadataID = VHDXIdentifier(
        0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e)

    init(table: Range<UInt64>, metadata: Range<UInt64>) {
        self.table = table
        self.metadata = metadata
    }

    init(of file: any ImageFile) throws(ImageError) {
        let bytes = try Self.bytes(of: file)
        let count = Int(bytes.littleEndian(UInt32.self, at: 8))
        guard count <= Self.entryLimit else { throw .corrupt("it has \(count) regions") }
        var regions: [VHDXIdentifier: Range<UInt64>] = [:]
        for index in 0..<count {
            let start = 16 + 32 * index
            let id = VHDXIdentifier(of: bytes, at: start)
            guard [Self.tableID, Self.metadataID].contains(id) else {
                guard bytes.littleEndian(UInt32.self, at: start + 28) & 1 == 0 else {
                    throw .unsupported("a region that it calls required")
                }
                continue
            }
            let offset = bytes.littleEndian(UInt64.self, at: start + 16)
            let length = UInt64(bytes.littleEndian(UInt32.self, at: start + 24))
            guard offset % VHDXLayout.alignment == 0, length % VHDXLayout.alignment == 0,
                length > 0, offset < 1 << 62, regions[id] == nil
            else { throw .corrupt("a region of it is not aligned or is there twice") }
            regions[id] = offset..<offset + length
        }
        guard let table = regions[Self.tableID], let metadata = regions[Self.metadataID] else {
            throw .corrupt("its block table or its metadata are missing")
        }
        self.init(table: table, metadata: metadata)
    }

    private static func bytes(of file: any ImageFile) throws(ImageError) -> [UInt8] {
        for offset in offsets {
            let found = try hosted { () throws(HostError) in
                try file.bytes(at: offset, count: byteCount)
            }
            if let found, found.holds("regi", at: 0), CRC32C.isSealed(found, at: 4) {
                return found
            }
        }
        throw .corrupt("neither of its region tables is valid")
    }

    /// Puts both tables into a new file.
    func write(on file: any ImageFile) throws(ImageError) {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.store("regi".utf8, at: 0)
        bytes.storeLittleEndian(2 as UInt32, at: 8)
        for (index, region) in [(Self.tableID, table), (Self.metadataID, metadata)].enumerated() {
            let start = 16 + 32 * index
            region.0.store(in: &bytes, at: start)
            bytes.storeLittleEndian(region.1.lowerBound, at: start + 16)
            bytes.storeLittleEndian(UInt32(region.1.count), at: start + 24)
            bytes.storeLittleEndian(1 as UInt32, at: start + 28)
        }
        CRC32C.seal(&bytes, at: 4)
        try hosted { () throws(HostError) in
            for offset in Self.offsets { try file.write(bytes, at: offset) }
        }
    }
}
