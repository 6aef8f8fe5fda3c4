import VMMHost

/// A qcow2 image, version 2 or 3, after QEMU's docs/interop/qcow2.txt. One thread at a time, but
/// for `extents`.
package final class QCOW2Image: DiskImage {
    package let format = ImageFormat.qcow2
    package let files: [any ImageFile]
    package let extents: ExtentMap
    package var byteCount: UInt64 { header.byteCount & ~511 }
    package var isReadOnly: Bool { file.isReadOnly || damage != nil }

    let file: any ImageFile
    let backing: (any DiskImage)?
    var header: QCOW2Header
    var geometry: QCOW2Geometry { header.geometry }
    /// The active L1 table.
    var l1: [UInt64]
    /// Sectors of the L1 table that differ from the file.
    var dirtyL1: Set<Int> = []
    /// Pieces of L2 tables, as they shall be.
    let tables: QCOW2TableCache
    var refcounts: QCOW2Refcounts
    /// Chunks of references that a check may have in memory.
    let referenceLimit: Int
    /// Why nothing may be written any more: the image contradicts itself.
    var damage: String?
    /// The compressed cluster that was read last: small reads in a row unpack it once.
    var unpacked: (host: UInt64, bytes: [UInt8])?
    /// Where the last packed bytes end: the next ones go into the same cluster.
    var packEnd: UInt64?

    /// Opens the image on `file`, and what it falls back on. A writable opening mends an image that
    /// was not closed and makes features stale that Swiftlet does not keep up.
    package init(_ file: any ImageFile, _ options: ImageOptions) throws(ImageError) {
        self.file = file
        header = try QCOW2Header(file)
        let geometry = header.geometry
        referenceLimit =
            options.isForRepair || file.isReadOnly
            ? QCOW2References.largestChunkLimit : Self.mendChunkLimit
        var options = options
        let tableByteCount =
            UInt64(header.l1Entries) * 8
            + UInt64(header.refcountTableClusters) * geometry.clusterSize
        guard tableByteCount <= options.tableByteLimit else {
            throw .unsupported("tables of more than 128 MiB in its chain")
        }
        options.tableByteLimit -= tableByteCount
        let fileByteCount = try hosted { () throws(HostError) in try file.byteCount() }
        l1 = try Self.table(
            file, at: header.l1Offset, count: UInt64(header.l1Entries), fileByteCount, "L1")
        let refcountTable = try Self.table(
            file, at: header.refcountTableOffset,
            count: UInt64(header.refcountTableClusters) * geometry.tableEntries,
            file.isReadOnly || options.isForRepair ? .max : fileByteCount, "refcount")
        refcounts = QCOW2Refcounts(
            file, geometry, table: refcountTable, tableOffset: header.refcountTableOffset,
            fileByteCount: fileByteCount)
        tables = QCOW2TableCache(file, pieceSize: geometry.pieceSize)
        backing = try Self.openBacking(header, of: file, options)
        files = [file] + (backing?.files ?? [])
        extents = ExtentMap(granule: geometry.clusterSize)
        guard header.byteCount >= 512 else { throw .invalid("is smaller than a sector") }
        if !file.isReadOnly { try prepareForWriting(options) }
    }

    /// A table out of the header: not longer than the file, which is not longer than its room.
    private static func table(
        _ file: any ImageFile, at offset: UInt64, count: UInt64, _ fileByteCount: UInt64,
        _ name: String
    ) throws(ImageError) -> [UInt64] {
        guard count > 0 else { return [] }
        guard offset > 0, offset < fileByteCount else {
            throw .corrupt("the \(name) table at \(offset) lies outside the file")
        }
        return try hosted { () throws(HostError) in
            var bytes = [UInt8](repeating: 0, count: Int(count) * 8)
            var span = bytes.mutableSpan
            try file.readPadded(into: &span, at: offset)
            return bytes.bigEndianTable()
        }
    }

    /// Reference counts that are mended while a machine waits: those of 1 TiB in clusters of
    /// 64 KiB, which take a second, and 75 MiB of memory.
    private static let mendLimit = UInt64(mendChunkLimit) * QCOW2References.chunkLength
    private static let mendChunkLimit = 1 << 17

    private func prepareForWriting(_ options: ImageOptions) throws(ImageError) {
        let isCorrupt = header.incompatible & QCOW2Header.corrupt != 0
        guard !isCorrupt || options.isForRepair else {
            throw .corrupt("it is marked as corrupt; it can be read, or repaired by a check")
        }
        if header.incompatible & QCOW2Header.dirty != 0, !options.isForRepair {
            // Whoever wrote it let refcounts lag behind and did not come to the end.
            let blocks = UInt64(refcounts.table.count { $0 != 0 })
            guard blocks <= Self.mendLimit / geometry.refcountsPerBlock + 1 else {
                throw .invalid("was not closed, and takes long to mend: have it checked first")
            }
            let result = try check(.everything)
            guard result.corruptions == 0 else {
                throw .corrupt(result.findings.first ?? "its refcounts cannot be rebuilt")
            }
        }
        damage = try mapMetadata()
        if let damage, !options.isForRepair { throw .corrupt(damage) }
        if header.autoclear != 0 {
            // Persistent bitmaps and the like do not follow what Swiftlet writes.
            header.autoclear = 0
            try storeHeader()
        }
    }

    /// Notes where tables lie. Returns the first contradiction.
    func mapMetadata() throws(ImageError) -> String? {
        let geometry = geometry
        var clusters: Set<UInt64> = [0]
        var finding: String?
        func add(_ offset: UInt64, _ byteCount: UInt64, _ name: String) {
            for index in 0..<geometry.clusters(byteCount) {
                let cluster = offset / geometry.clusterSize + index
                guard !clusters.insert(cluster).inserted else { continue }
                finding = finding ?? "the \(name) at \(offset) overlaps another table"
            }
        }
        add(header.l1Offset, UInt64(l1.count) * 8, "L1 table")
        add(header.refcountTableOffset, UInt64(refcounts.table.count) * 8, "refcount table")
        for (index, entry) in refcounts.table.enumerated() where entry != 0 {
            guard entry & ~QCOW2Geometry.offsetMask == 0, entry % geometry.clusterSize == 0 else {
                finding = finding ?? "entry \(index) of the refcount table is \(entry)"
                continue
            }
            add(entry, geometry.clusterSize, "refcount block")
        }
        for entry in l1 {
            // What is wrong with an entry is said when it is used.
            guard let offset = try? tableOffset(entry), offset != 0 else { continue }
            add(offset, geometry.clusterSize, "L2 table")
        }
        refcounts.metadata = clusters
        if finding == nil { finding = try uncounted(clusters) }
        return finding
    }

    private func uncounted(_ clusters: Set<UInt64>) throws(ImageError) -> String? {
        for cluster in clusters where try refcounts.count(of: cluster) == 0 {
            return "the table at \(cluster * geometry.clusterSize) has no reference count"
        }
        return nil
    }

    // MARK: lookup

    /// Where the L2 table of an L1 entry lies; 0 when there is none.
    func tableOffset(_ entry: UInt64) throws(ImageError) -> UInt64 {
        let offset = entry & QCOW2Geometry.offsetMask
        guard entry & ~(QCOW2Geometry.offsetMask | QCOW2Geometry.copied) == 0,
            offset % geometry.clusterSize == 0
        else { throw .corrupt("an entry of the L1 table is \(entry)") }
        return offset
    }

    /// What the tables say of the guest's cluster around `offset`.
    func mapping(at offset: UInt64) throws(ImageError) -> QCOW2Mapping {
        let index = offset / geometry.tableCoverage
        guard index < UInt64(l1.count) else { throw .outOfRange }
        let table = try tableOffset(l1[Int(index)])
        guard table != 0 else { return .unallocated }
        let place = table + offset % geometry.tableCoverage / geometry.clusterSize * 8
        let entry = try hosted { () throws(HostError) in try tables.load64(at: place) }
        guard let mapping = QCOW2Mapping(entry: entry, version: header.version, geometry) else {
            throw .corrupt("the entry at \(place) of an L2 table is \(entry)")
        }
        return mapping
    }

    /// A stretch of guest bytes that is kept in one way; `host` is where its first byte lies.
    struct Run {
        var mapping: QCOW2Mapping
        var host: UInt64
        var count: UInt64
    }

    /// The longest stretch from `offset` on, at most `limit` bytes; of compressed ones one cluster.
    func run(at offset: UInt64, limit: UInt64) throws(ImageError) -> Run {
        let clusterSize = geometry.clusterSize
        let first = try mapping(at: offset)
        let inside = offset % clusterSize
        var run = Run(mapping: first, host: 0, count: clusterSize - inside)
        switch first {
        case .data(let host, _): run.host = host + inside
        case .compressed:
            run.count = min(run.count, limit)
            return run
        case .unallocated, .zeros: break
        }
        while run.count < limit {
            let next = offset + run.count
            let index = next / geometry.tableCoverage
            if first == .unallocated, next % geometry.tableCoverage == 0, index < UInt64(l1.count),
                l1[Int(index)] == 0
            {
                run.count += geometry.tableCoverage
                continue
            }
            // A broken entry further on is its own request's failure.
            guard let mapping = try? mapping(at: next) else { break }
            guard Self.continues(first, mapping, by: next - offset + inside) else { break }
            run.count += clusterSize
        }
        run.count = min(run.count, limit)
        return run
    }

    private static func continues(
        _ first: QCOW2Mapping, _ next: QCOW2Mapping, by distance: UInt64
    ) -> Bool {
        switch (first, next) {
        case (.unallocated, .unallocated): true
        case (.zeros(nil, _), .zeros(nil, _)): true
        case (.data(let host, let isCopied), .data(let other, let isOtherCopied)):
            other == host + distance && isCopied == isOtherCopied
        default: false
        }
    }

    // MARK: contradictions

    func requireWritable() throws(ImageError) {
        if let damage { throw .corrupt(damage) }
        guard !file.isReadOnly else { throw .invalid("is opened read-only") }
    }

    /// Marks the image as corrupt, on the disk too, and refuses every write from now on.
    func contradiction(_ what: String) -> ImageError {
        damage = what
        if header.version >= 3 {
            header.incompatible |= QCOW2Header.corrupt
            // The mark is for others; not being able to set it changes nothing here.
            try? storeHeader()
        }
        return .corrupt(what)
    }

    /// Writes the header's fields and sees them to the disk.
    func storeHeader() throws(ImageError) {
        try hosted { () throws(HostError) in
            try header.store(on: file)
            try file.synchronize()
        }
    }

    /// Makes `changed` the header. When that fails the disk may have either, so that nothing can be
    /// written any more that only one of them refers to.
    func storeHeader(_ changed: QCOW2Header) throws(ImageError) {
        let previous = header
        header = changed
        do throws(ImageError) {
            try storeHeader()
        } catch {
            header = previous
            damage = "its header could not be written"
            throw error
        }
    }

    package func close() throws(ImageError) {
        if !file.isReadOnly { try flush() }
        try backing?.close()
    }
}
