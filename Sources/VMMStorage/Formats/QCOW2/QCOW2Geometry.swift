/// Sizes that follow from a qcow2 header's cluster size and refcount width.
struct QCOW2Geometry: Sendable, Equatable {
    /// 9...21, as the header's check upholds.
    let clusterBits: Int
    /// 0...6: a refcount has `1 << refcountOrder` bits.
    let refcountOrder: Int

    var clusterSize: UInt64 { 1 << clusterBits }
    /// Entries of one cluster of an L2 table, an L1 table or the refcount table.
    var tableEntries: UInt64 { clusterSize / 8 }
    /// Guest bytes that one L2 table maps.
    var tableCoverage: UInt64 { clusterSize * tableEntries }
    var refcountsPerBlock: UInt64 { (clusterSize * 8) >> refcountOrder }
    var refcountLimit: UInt64 { refcountOrder == 6 ? .max : (1 << (1 << refcountOrder)) - 1 }
    /// What tables are cached in: 4 KiB is 512 entries, a slice of the extent map.
    var pieceSize: Int { min(4096, 1 << clusterBits) }

    /// Where things may lie: bits 9 to 55 of an entry.
    static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00
    static let copied: UInt64 = 1 << 63
    static let compressed: UInt64 = 1 << 62
    static let zero: UInt64 = 1
    /// As QEMU: room for 2 EiB of refcounts at the default sizes, and what a claim may cost us.
    static let refcountTableLimit: UInt64 = 8 << 20
    /// As QEMU: 2 PiB of disk with clusters of 64 KiB, and what a claim may cost us.
    static let l1TableLimit: UInt64 = 32 << 20

    func clusters(_ byteCount: UInt64) -> UInt64 { byteCount.dividedUp(by: clusterSize) }

    /// Entries of the L1 table that a disk of `byteCount` needs.
    func l1Entries(_ byteCount: UInt64) -> UInt64 { byteCount.dividedUp(by: tableCoverage) }
}

/// What an entry of an L2 table says.
enum QCOW2Mapping: Equatable {
    case unallocated
    /// Reads as zeros; `host`: a cluster kept for it all the same.
    case zeros(host: UInt64?, isCopied: Bool)
    case data(host: UInt64, isCopied: Bool)
    /// `count` bytes, of which the packed ones are the first.
    case compressed(host: UInt64, count: Int)

    /// Nil for what the specification does not allow.
    init?(entry: UInt64, version: UInt32, _ geometry: QCOW2Geometry) {
        if entry & QCOW2Geometry.compressed != 0 {
            let width = UInt64(62 - (geometry.clusterBits - 8))
            let host = entry & (1 << width - 1)
            let sectors = (entry & (1 << 62 - 1)) >> width + 1
            self = .compressed(host: host, count: Int(sectors * 512 - host % 512))
            return
        }
        let host = entry & QCOW2Geometry.offsetMask
        let flags = entry & ~(QCOW2Geometry.offsetMask | QCOW2Geometry.copied)
        guard flags & ~QCOW2Geometry.zero == 0, host % geometry.clusterSize == 0 else { return nil }
        let isCopied = entry & QCOW2Geometry.copied != 0
        if flags != 0 {
            guard version >= 3 else { return nil }
            self = .zeros(host: host == 0 ? nil : host, isCopied: isCopied)
        } else {
            self = host == 0 ? .unallocated : .data(host: host, isCopied: isCopied)
        }
    }
}
