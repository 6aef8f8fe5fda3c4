import VMMHost

/// Walks all tables of an image that has nothing unwritten, and counts what they refer to. Each
/// table is read once, however often it is referred to, and holes in the file not at all: the work
/// is bounded by what the file really holds.
struct QCOW2Checker {
    let image: QCOW2Image
    private let file: any ImageFile
    private let geometry: QCOW2Geometry
    private let fileClusters: UInt64
    private(set) var references: QCOW2References
    private(set) var report = ImageCheck()
    /// L2 tables, and how many L1 entries name them.
    private var tables: [UInt64: UInt32] = [:]

    /// As QEMU: more is no sensible snapshot's extra data.
    private static let extraDataLimit: UInt32 = 1024
    /// Entries of all snapshots' L1 tables, and of all bitmaps' tables: 512 MiB to read.
    private static let entryLimit: UInt64 = 64 << 20
    private static let bitmapDirectoryLimit: UInt64 = 16 << 20
    private static let chunk: UInt64 = 64 << 10

    init(_ image: QCOW2Image) throws(ImageError) {
        self.image = image
        file = image.file
        references = QCOW2References(chunkLimit: image.referenceLimit)
        geometry = image.geometry
        let file = file
        fileClusters = geometry.clusters(
            try hosted { () throws(HostError) in try file.byteCount() })
    }

    /// `withRefcounts`: the refcount table and its blocks are counted too.
    mutating func count(withRefcounts: Bool) throws(ImageError) {
        try add(0, 1, "the header")
        try add(image.header.l1Offset, UInt64(image.l1.count) * 8, "the L1 table")
        for entry in image.l1 { try addTable(entry) }
        try countSnapshots()
        for (table, weight) in tables { try countTable(table, weight) }
        try countBitmaps()
        if withRefcounts { try countRefcounts() }
        report.totalUnits = geometry.clusters(image.header.byteCount)
        report.endOffset = references.end * geometry.clusterSize
    }

    private mutating func corrupt(_ finding: String) {
        report.corruptions += 1
        report.add(finding)
    }

    /// Counts the clusters of a byte range, which must lie inside the file.
    private mutating func add(
        _ offset: UInt64, _ byteCount: UInt64, _ what: String, weight: UInt32 = 1
    ) throws(ImageError) {
        guard byteCount > 0 else { return }
        let first = offset / geometry.clusterSize
        let end = offset.addingReportingOverflow(byteCount - 1)
        let last = end.partialValue / geometry.clusterSize
        guard !end.overflow, last < fileClusters else {
            return corrupt("\(what) at \(offset) reaches beyond the file's end")
        }
        for cluster in first...last { try references.add(cluster, weight: weight) }
    }

    private mutating func addTable(_ entry: UInt64) throws(ImageError) {
        guard entry != 0 else { return }
        guard let offset = try? image.tableOffset(entry) else {
            return corrupt("an entry of an L1 table is \(entry)")
        }
        guard offset != 0 else { return }
        guard offset / geometry.clusterSize < fileClusters else {
            return corrupt("the L2 table at \(offset) lies beyond the file's end")
        }
        tables[offset, default: 0] &+= 1
    }

    private mutating func countTable(_ table: UInt64, _ weight: UInt32) throws(ImageError) {
        try add(table, geometry.clusterSize, "the L2 table", weight: weight)
        try read(table, geometry.clusterSize) { (checker, entry, place) throws(ImageError) in
            try checker.countEntry(entry, at: place, weight)
        }
    }

    private mutating func countEntry(
        _ entry: UInt64, at place: UInt64, _ weight: UInt32
    ) throws(ImageError) {
        guard entry != 0 else { return }
        guard let mapping = QCOW2Mapping(entry: entry, version: image.header.version, geometry)
        else { return corrupt("the entry at \(place) of an L2 table is \(entry)") }
        switch mapping {
        case .unallocated, .zeros(nil, _): return
        case .zeros(let host?, _), .data(let host, _):
            report.allocatedUnits += 1
            try add(host, geometry.clusterSize, "guest data", weight: weight)
        case .compressed(let host, let count):
            report.allocatedUnits += 1
            try addCompressed(host, count, weight)
        }
    }

    /// The last sector claimed may lie beyond the end of a file that is no longer than the packed
    /// bytes.
    private mutating func addCompressed(
        _ host: UInt64, _ count: Int, _ weight: UInt32
    ) throws(ImageError) {
        let end = min(host + UInt64(count), fileClusters * geometry.clusterSize)
        guard host < end else {
            return corrupt("compressed data at \(host) lies beyond the file's end")
        }
        try add(host, end - host, "compressed data", weight: weight)
    }

    /// Goes through the numbers of a table, but for those in holes.
    private mutating func read(
        _ offset: UInt64, _ byteCount: UInt64,
        _ body: (inout QCOW2Checker, UInt64, UInt64) throws(ImageError) -> Void
    ) throws(ImageError) {
        let end = offset + byteCount
        var position = offset
        while position < end {
            let file = file
            let start = position
            let data = try hosted { () throws(HostError) in try file.allocatedRange(from: start) }
            guard let data, data.lowerBound < end else { return }
            position = max(position, data.lowerBound & ~7)
            let part = min(end - position, Self.chunk)
            var bytes = [UInt8](repeating: 0, count: Int(part))
            do throws(HostError) {
                var span = bytes.mutableSpan
                try file.readPadded(into: &span, at: position)
            } catch {
                throw .host(error)
            }
            for index in 0..<Int(part / 8) {
                try body(
                    &self, bytes.bigEndian(UInt64.self, at: index * 8), position + UInt64(index) * 8
                )
            }
            position += max(part & ~7, 8)
        }
    }

    // MARK: the rest of the file

    private mutating func countRefcounts() throws(ImageError) {
        try add(
            image.header.refcountTableOffset, UInt64(image.refcounts.table.count) * 8,
            "the refcount table")
        for (index, entry) in image.refcounts.table.enumerated() where entry != 0 {
            guard entry & ~QCOW2Geometry.offsetMask == 0, entry % geometry.clusterSize == 0 else {
                corrupt("entry \(index) of the refcount table is \(entry)")
                continue
            }
            try add(entry, geometry.clusterSize, "a refcount block")
        }
    }

    private mutating func countSnapshots() throws(ImageError) {
        let start = image.header.snapshotsOffset
        var offset = start
        var entries: UInt64 = 0
        for _ in 0..<image.header.snapshotCount {
            let file = file
            let place = offset
            let head = try hosted { () throws(HostError) in try file.bytes(at: place, count: 40) }
            guard let head, head.bigEndian(UInt32.self, at: 36) <= Self.extraDataLimit else {
                return corrupt("the snapshot table is damaged at \(offset)")
            }
            let length =
                40 + Int(head.bigEndian(UInt32.self, at: 36))
                + Int(head.bigEndian(UInt32.self, at: 12) >> 16)
                + Int(head.bigEndian(UInt32.self, at: 12) & 0xffff)
            offset += UInt64((length + 7) & ~7)
            entries += UInt64(head.bigEndian(UInt32.self, at: 8))
            guard entries <= Self.entryLimit else {
                throw .unsupported("snapshots of more clusters than a check has time for")
            }
            try countL1(
                head.bigEndian(UInt64.self, at: 0), UInt64(head.bigEndian(UInt32.self, at: 8)))
        }
        try add(start, offset - start, "the snapshot table")
    }

    private mutating func countL1(_ offset: UInt64, _ count: UInt64) throws(ImageError) {
        guard offset & ~QCOW2Geometry.offsetMask == 0, offset % geometry.clusterSize == 0 else {
            return corrupt("a snapshot's L1 table is at \(offset)")
        }
        try add(offset, count * 8, "a snapshot's L1 table")
        try read(offset, count * 8) { (checker, entry, _) throws(ImageError) in
            try checker.addTable(entry)
        }
    }

    private mutating func countBitmaps() throws(ImageError) {
        guard let bitmaps = image.header.bitmaps else { return }
        guard bitmaps.directoryByteCount <= Self.bitmapDirectoryLimit,
            bitmaps.directoryOffset & ~QCOW2Geometry.offsetMask == 0
        else { return corrupt("the directory of bitmaps is at \(bitmaps.directoryOffset)") }
        try add(bitmaps.directoryOffset, bitmaps.directoryByteCount, "the directory of bitmaps")
        let end = bitmaps.directoryOffset + bitmaps.directoryByteCount
        var offset = bitmaps.directoryOffset
        var entries: UInt64 = 0
        while offset + 24 <= end {
            let file = file
            let place = offset
            let head = try hosted { () throws(HostError) in try file.bytes(at: place, count: 24) }
            guard let head else { return }
            let count = UInt64(head.bigEndian(UInt32.self, at: 8))
            let table = head.bigEndian(UInt64.self, at: 0)
            guard table & ~QCOW2Geometry.offsetMask == 0, entries + count <= Self.entryLimit
            else {
                return corrupt("a bitmap's table is at \(table)")
            }
            entries += count
            try add(table, count * 8, "a bitmap's table")
            try read(table, count * 8) { (checker, entry, _) throws(ImageError) in
                let data = entry & QCOW2Geometry.offsetMask
                guard data != 0 else { return }
                try checker.add(data, checker.geometry.clusterSize, "a bitmap")
            }
            let length =
                24 + UInt64(head.bigEndian(UInt32.self, at: 20))
                + UInt64(head.bigEndian(UInt32.self, at: 16) & 0xffff)
            offset += length.roundedUp(to: 8)
        }
    }
}
