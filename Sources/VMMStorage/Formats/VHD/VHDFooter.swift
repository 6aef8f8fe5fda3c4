import VMMHost

/// The last sector of a VHD, and of a dynamic one the first too (Virtual Hard Disk Image Format
/// Specification 1.0, "Hard Disk Footer Format"). Numbers are big-endian.
struct VHDFooter {
    static let byteCount = 512
    static let cookie = "conectix"
    /// The guest's view is at most 2040 GiB: sectors are counted in 32 bits.
    static let sizeLimit: UInt64 = 2040 << 30

    enum DiskType: UInt32 {
        case fixed = 2
        case dynamic = 3
        case differencing = 4
    }

    let bytes: [UInt8]
    let type: DiskType
    /// "Current Size", whatever program made the file: QEMU takes the geometry's product instead
    /// for programs that it does not know, unless the geometry is the greatest possible one.
    var diskByteCount: UInt64 { bytes.bigEndian(UInt64.self, at: 48) }
    /// Where the dynamic header lies.
    var headerOffset: UInt64 { bytes.bigEndian(UInt64.self, at: 16) }

    /// A sector as a footer; nil when it is none, or a broken one.
    init?(_ sector: [UInt8]) {
        guard sector.count == Self.byteCount, sector.holds(Self.cookie, at: 0),
            sector.bigEndian(UInt32.self, at: 64) == Self.checksum(sector, at: 64),
            let type = DiskType(rawValue: sector.bigEndian(UInt32.self, at: 60))
        else { return nil }
        bytes = sector
        self.type = type
    }

    init(_ type: DiskType, diskByteCount: UInt64) {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.store(Self.cookie.utf8, at: 0)
        bytes.storeBigEndian(2 as UInt32, at: 8)
        bytes.storeBigEndian(0x0001_0000 as UInt32, at: 12)
        bytes.storeBigEndian(
            type == .fixed ? UInt64.max : UInt64(VHDFooter.byteCount), at: 16)
        bytes.store("swft".utf8, at: 28)
        bytes.storeBigEndian(0x0001_0000 as UInt32, at: 32)
        bytes.store("Wi2k".utf8, at: 36)
        bytes.storeBigEndian(diskByteCount, at: 40)
        bytes.storeBigEndian(diskByteCount, at: 48)
        bytes.storeBigEndian(Self.geometry(diskByteCount), at: 56)
        bytes.storeBigEndian(type.rawValue, at: 60)
        bytes.store((0..<16).map { _ in UInt8.random(in: 0...255) }, at: 68)
        bytes.storeBigEndian(Self.checksum(bytes, at: 64), at: 64)
        self.bytes = bytes
        self.type = type
    }

    /// The complement of the sum of all bytes but the checksum's own.
    static func checksum(_ bytes: [UInt8], at offset: Int) -> UInt32 {
        var sum: UInt32 = 0
        for index in bytes.indices where !(offset..<offset + 4).contains(index) {
            sum &+= UInt32(bytes[index])
        }
        return ~sum
    }

    /// Cylinders, heads and sectors. A size that is not a whole number of cylinders has the
    /// greatest geometry, which readers that go by the geometry take as "see the size".
    private static func geometry(_ byteCount: UInt64) -> UInt32 {
        let (heads, sectors): (UInt64, UInt64) = (16, 63)
        let cylinders = byteCount / 512 / (heads * sectors)
        guard cylinders * heads * sectors * 512 == byteCount, (1...65535).contains(cylinders) else {
            return 0xffff_10ff
        }
        return UInt32(cylinders) << 16 | UInt32(heads) << 8 | UInt32(sectors)
    }
}
