import VMMBase
import VMMHost

/// The first cluster of a qcow2 image, as QEMU's docs/interop/qcow2.txt lays it out. What this does
/// not know of is left where it is: fields are written back one by one.
struct QCOW2Header {
    static let dirty: UInt64 = 1 << 0
    static let corrupt: UInt64 = 1 << 1
    static let compressionType: UInt64 = 1 << 3
    /// A compatible feature.
    static let lazyRefcounts: UInt64 = 1 << 0
    private static let known = dirty | corrupt | compressionType
    private static let refused: [(bit: Int, name: String)] = [
        (2, "an external data file"), (4, "extended L2 entries"),
    ]
    private static let byteCountLimit = 112
    private static let backingNameLimit = 1023
    private static let snapshotLimit = 65536

    let version: UInt32
    let geometry: QCOW2Geometry
    var byteCount: UInt64
    var l1Entries: UInt32
    var l1Offset: UInt64
    var refcountTableOffset: UInt64
    var refcountTableClusters: UInt32
    let snapshotCount: UInt32
    let snapshotsOffset: UInt64
    var incompatible: UInt64 = 0
    var compatible: UInt64 = 0
    var autoclear: UInt64 = 0
    var compression = QCOW2Compression.zlib
    var backingName: String?
    var backingFormat: String?
    /// Where persistent bitmaps are listed, while they are in step with the image.
    var bitmaps: Bitmaps?

    struct Bitmaps {
        let count: UInt32
        let directoryOffset: UInt64
        let directoryByteCount: UInt64
    }

    init(_ file: any ImageFile) throws(ImageError) {
        let start = try hosted { () throws(HostError) in
            var bytes = [UInt8](repeating: 0, count: Self.byteCountLimit)
            var span = bytes.mutableSpan
            let count = try file.read(into: &span, at: 0)
            return count >= 72 ? bytes : []
        }
        guard !start.isEmpty else { throw .corrupt("the header is cut short") }
        version = start.bigEndian(UInt32.self, at: 4)
        guard version == 2 || version == 3 else {
            throw .unsupported("version \(version) of qcow2")
        }
        let clusterBits = start.bigEndian(UInt32.self, at: 20)
        guard (9...21).contains(clusterBits) else {
            throw .corrupt("clusters of 2^\(clusterBits) bytes (2^9 to 2^21 are allowed)")
        }
        let refcountOrder = version == 2 ? 4 : start.bigEndian(UInt32.self, at: 96)
        guard refcountOrder <= 6 else { throw .corrupt("refcounts of 2^\(refcountOrder) bits") }
        geometry = QCOW2Geometry(clusterBits: Int(clusterBits), refcountOrder: Int(refcountOrder))
        byteCount = start.bigEndian(UInt64.self, at: 24)
        l1Entries = start.bigEndian(UInt32.self, at: 36)
        l1Offset = start.bigEndian(UInt64.self, at: 40)
        refcountTableOffset = start.bigEndian(UInt64.self, at: 48)
        refcountTableClusters = start.bigEndian(UInt32.self, at: 56)
        snapshotCount = start.bigEndian(UInt32.self, at: 60)
        snapshotsOffset = start.bigEndian(UInt64.self, at: 64)
        let encryption = start.bigEndian(UInt32.self, at: 32)
        try readRest(of: file, start)
        guard encryption == 0 else { throw .unsupported("encryption (method \(encryption))") }
        try validate()
    }

    /// What only version 3 has, the extensions, and the name of the backing file.
    private mutating func readRest(of file: any ImageFile, _ start: [UInt8]) throws(ImageError) {
        let clusterSize = Int(geometry.clusterSize)
        let head = try hosted { () throws(HostError) in
            var bytes = [UInt8](repeating: 0, count: clusterSize)
            var span = bytes.mutableSpan
            try file.readPadded(into: &span, at: 0)
            return bytes
        }
        var headerLength = 72
        if version >= 3 {
            incompatible = head.bigEndian(UInt64.self, at: 72)
            compatible = head.bigEndian(UInt64.self, at: 80)
            autoclear = head.bigEndian(UInt64.self, at: 88)
            guard let length = Int(exactly: head.bigEndian(UInt32.self, at: 100)),
                (104...clusterSize).contains(length),
                length % 8 == 0
            else {
                throw .corrupt(
                    "the header claims a length of \(head.bigEndian(UInt32.self, at: 100)) bytes")
            }
            headerLength = length
        }
        let backingOffset = head.bigEndian(UInt64.self, at: 8)
        let extensions = QCOW2Extensions(
            head, from: headerLength,
            to: backingOffset == 0 ? clusterSize : Int(clamping: backingOffset))
        try requireKnownFeatures(extensions)
        if incompatible & Self.compressionType != 0 {
            guard headerLength > 104, let kind = QCOW2Compression(rawValue: head[104]) else {
                throw .unsupported("compression type \(headerLength > 104 ? head[104] : 0)")
            }
            compression = kind
        }
        backingFormat = extensions.backingFormat
        if autoclear & 1 != 0 { bitmaps = extensions.bitmaps }
        guard backingOffset != 0 else { return }
        let length = Int(head.bigEndian(UInt32.self, at: 16))
        guard length <= Self.backingNameLimit, let offset = Int(exactly: backingOffset),
            offset >= headerLength, offset <= clusterSize - length
        else { throw .corrupt("the backing file's name lies outside the header") }
        if length > 0 {
            backingName = String(decoding: head[offset..<offset + length], as: UTF8.self)
        }
    }

    private func requireKnownFeatures(_ extensions: QCOW2Extensions) throws(ImageError) {
        for feature in Self.refused where incompatible & 1 << UInt64(feature.bit) != 0 {
            throw .unsupported(feature.name)
        }
        let unknown = incompatible & ~Self.known
        guard unknown != 0 else { return }
        let bit = unknown.trailingZeroBitCount
        throw .unsupported(
            extensions.incompatibleNames[bit].map { "the feature '\($0.printable)'" }
                ?? "the incompatible feature of bit \(bit)")
    }

    /// Numbers that memory is asked for by, and tables that must be whole clusters.
    private func validate() throws(ImageError) {
        let clusterSize = geometry.clusterSize
        guard l1Offset % clusterSize == 0, refcountTableOffset % clusterSize == 0,
            snapshotsOffset % clusterSize == 0
        else { throw .corrupt("a table does not begin with a cluster") }
        guard (l1Offset | refcountTableOffset | snapshotsOffset) & ~QCOW2Geometry.offsetMask == 0
        else { throw .corrupt("a table lies beyond any file's end") }
        guard UInt64(l1Entries) * 8 <= QCOW2Geometry.l1TableLimit else {
            throw .corrupt("the L1 table claims \(l1Entries) entries")
        }
        guard geometry.l1Entries(byteCount) <= UInt64(l1Entries) else {
            throw .corrupt("the L1 table has \(l1Entries) entries, too few for the disk's size")
        }
        guard UInt64(refcountTableClusters) * clusterSize <= QCOW2Geometry.refcountTableLimit else {
            throw .corrupt("the refcount table claims \(refcountTableClusters) clusters")
        }
        guard snapshotCount <= Self.snapshotLimit else {
            throw .corrupt("the header claims \(snapshotCount) snapshots")
        }
    }

    /// Changes the header's first sector: one write, so a power cut leaves the old or the new.
    func store(on file: any ImageFile) throws(HostError) {
        var sector = [UInt8](repeating: 0, count: 512)
        var span = sector.mutableSpan
        try file.readPadded(into: &span, at: 0)
        sector.storeBigEndian(byteCount, at: 24)
        sector.storeBigEndian(l1Entries, at: 36)
        sector.storeBigEndian(l1Offset, at: 40)
        sector.storeBigEndian(refcountTableOffset, at: 48)
        sector.storeBigEndian(refcountTableClusters, at: 56)
        if version >= 3 {
            sector.storeBigEndian(incompatible, at: 72)
            sector.storeBigEndian(autoclear, at: 88)
        }
        try file.write(sector, at: 0)
    }
}

/// What follows the header's fields: what Swiftlet needs of it.
struct QCOW2Extensions {
    private(set) var backingFormat: String?
    private(set) var bitmaps: QCOW2Header.Bitmaps?
    /// Names of incompatible features, by bit.
    private(set) var incompatibleNames: [Int: String] = [:]

    private static let backingFormatType: UInt32 = 0xe279_2aca
    private static let featureNamesType: UInt32 = 0x6803_f857
    private static let bitmapsType: UInt32 = 0x2385_2875

    /// An extension that claims to reach beyond `end` ends the list.
    init(_ head: [UInt8], from start: Int, to end: Int) {
        let end = min(end, head.count)
        var offset = start
        while offset + 8 <= end {
            let type = head.bigEndian(UInt32.self, at: offset)
            let length = Int(head.bigEndian(UInt32.self, at: offset + 4))
            offset += 8
            guard type != 0, length <= end - offset else { return }
            add(type, Array(head[offset..<offset + length]))
            offset += (length + 7) & ~7
        }
    }

    private mutating func add(_ type: UInt32, _ data: [UInt8]) {
        switch type {
        case Self.backingFormatType: backingFormat = String(decoding: data, as: UTF8.self)
        case Self.bitmapsType where data.count >= 24:
            bitmaps = .init(
                count: data.bigEndian(UInt32.self, at: 0),
                directoryOffset: data.bigEndian(UInt64.self, at: 16),
                directoryByteCount: data.bigEndian(UInt64.self, at: 8))
        case Self.featureNamesType:
            for start in stride(from: 0, to: data.count - 47, by: 48) where data[start] == 0 {
                let name = data[start + 2..<start + 48].prefix { $0 != 0 }
                incompatibleNames[Int(data[start + 1])] = String(decoding: name, as: UTF8.self)
            }
        default: return
        }
    }
}
