import VMMHost

/// What stands in front of a dynamic VHD's block: a bit for each sector, the highest of a byte
/// first, set when the sector was written. Others read as zeros.
struct VHDSectorBitmap {
    private let bits: [UInt8]
    private let sectorCount: UInt64
    let isFull: Bool

    init(of file: any ImageFile, at offset: UInt64, blockByteCount: UInt64) throws(ImageError) {
        sectorCount = blockByteCount / 512
        let count = Int(sectorCount / 8)
        let found = try hosted { () throws(HostError) in
            try file.bytes(at: offset, count: count)
        }
        guard let found else { throw .corrupt("the file ends inside a block's bitmap") }
        bits = found
        isFull = found.allSatisfy { $0 == 0xff }
    }

    /// The bitmap of a block with all its sectors, in whole sectors.
    static func full(_ blockByteCount: UInt64) -> [UInt8] {
        [UInt8](repeating: 0xff, count: Int((blockByteCount / 512).roundedUp(to: 4096) / 8))
    }

    /// The bytes from `offset` of the block on that are all written, or all not.
    func run(at offset: UInt64) -> (isWritten: Bool, count: UInt64) {
        let first = offset / 512
        let isWritten = self[first]
        var sector = first + 1
        while sector < sectorCount, self[sector] == isWritten { sector += 1 }
        return (isWritten, sector * 512 - offset)
    }

    private subscript(sector: UInt64) -> Bool {
        bits[Int(sector / 8)] & 0x80 >> UInt8(sector % 8) != 0
    }
}
