import VMMHost

/// The check: what the tables refer to against what the refcounts say.
extension QCOW2Image {
    /// Repair is for an image that nobody else uses: what was published before may be wrong after.
    package func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck {
        if repair != .nothing, file.isReadOnly { throw .invalid("is opened read-only") }
        if !isReadOnly { try flush() }
        let found = try examine()
        guard repair != .nothing else { return found.report }
        if repair == .everything, found.needsRebuild {
            try rebuildRefcounts()
        } else {
            try lower(found.leaks)
        }
        if repair == .everything {
            try mendCopiedFlags()
            damage = try mapMetadata()
        }
        try writeMetadata()
        try synchronizeFile()
        var left = try examine().report
        left.repairedCorruptions = max(0, found.report.corruptions - left.corruptions)
        left.repairedLeaks = max(0, found.report.leaks - left.leaks)
        let marks = QCOW2Header.dirty | QCOW2Header.corrupt
        if repair == .everything, left.corruptions == 0, header.incompatible & marks != 0 {
            header.incompatible &= ~marks
            try storeHeader()
        }
        return left
    }

    private func synchronizeFile() throws(ImageError) {
        try hosted { () throws(HostError) in try file.synchronize() }
    }

    /// What is mended at a time: a check is repeated for more.
    private static let mendLimit = 1 << 20

    private struct Examination {
        var report: ImageCheck
        /// Clusters counted too high, up to a limit, and what they should be.
        var leaks: [(cluster: UInt64, count: UInt64)] = []
        /// Some cluster is counted too low, or the refcount structures are broken.
        var needsRebuild = false
    }

    private func examine() throws(ImageError) -> Examination {
        var checker = try QCOW2Checker(self)
        try checker.count(withRefcounts: true)
        let references = checker.references
        var result = Examination(report: checker.report)
        if let overlap = try mapMetadataForCheck() {
            result.report.corruptions += 1
            result.report.add(overlap)
            result.needsRebuild = true
        }
        try compareCounts(references, &result)
        for (place, _) in try wrongCopiedFlags(references) {
            result.report.corruptions += 1
            result.report.add("the entry at \(place) is wrong about its cluster's being shared")
        }
        return result
    }

    private func mapMetadataForCheck() throws(ImageError) -> String? {
        let metadata = refcounts.metadata
        defer { refcounts.metadata = metadata }
        return try mapMetadata()
    }

    /// Compares both ways: what has a count, and what has none but is referred to.
    private func compareCounts(
        _ references: QCOW2References, _ result: inout Examination
    ) throws(ImageError) {
        var found = result
        let perBlock = geometry.refcountsPerBlock
        let fileClusters = geometry.clusters(
            try hosted { () throws(HostError) in try file.byteCount() })
        // A block that stands in the table again is a corruption that the checker has found; to
        // compare it once more for each time would take hours.
        var seen: Set<UInt64> = []
        for (index, offset) in refcounts.table.enumerated()
        where isBlock(offset) && seen.insert(offset).inserted {
            // As QEMU: what is counted behind the file's end costs nothing.
            guard UInt64(index) * perBlock < fileClusters else { break }
            let hole = try hosted { () throws(HostError) in
                try file.allocatedRange(from: offset).map {
                    $0.lowerBound >= offset + geometry.clusterSize
                }
                    ?? true
            }
            if hole { continue }
            for inside in 0..<perBlock {
                let cluster = UInt64(index) * perBlock + inside
                let count = try refcounts.count(of: cluster)
                let expected = references.count(of: cluster)
                guard count > expected, cluster < fileClusters else { continue }
                found.report.leaks += 1
                found.report.add("the cluster at \(cluster * geometry.clusterSize) is leaked")
                if found.leaks.count < Self.mendLimit { found.leaks.append((cluster, expected)) }
            }
        }
        try references.forEach { (cluster, expected) throws(ImageError) in
            guard try countedSafely(cluster) < expected else { return }
            found.report.corruptions += 1
            found.report.add(
                "the cluster at \(cluster * geometry.clusterSize) has \(expected) references, "
                    + "more than are counted")
            found.needsRebuild = true
        }
        result = found
    }

    private func isBlock(_ entry: UInt64) -> Bool {
        entry != 0 && entry & ~QCOW2Geometry.offsetMask == 0 && entry % geometry.clusterSize == 0
    }

    private func countedSafely(_ cluster: UInt64) throws(ImageError) -> UInt64 {
        let index = cluster / geometry.refcountsPerBlock
        guard index < UInt64(refcounts.table.count), isBlock(refcounts.table[Int(index)]) else {
            return 0
        }
        return try refcounts.count(of: cluster)
    }

    // MARK: repair

    private func lower(_ leaks: [(cluster: UInt64, count: UInt64)]) throws(ImageError) {
        for leak in leaks {
            try refcounts.set(leak.count, of: leak.cluster)
            if refcounts.isCrowded { try writeMetadata() }
        }
    }

    /// Entries of the active tables whose flag says otherwise than the references; their places
    /// and what they should be.
    private func wrongCopiedFlags(
        _ references: QCOW2References
    ) throws(ImageError) -> [(place: UInt64, entry: UInt64)] {
        var wrong: [(place: UInt64, entry: UInt64)] = []
        var seen: Set<UInt64> = []
        for (index, entry) in l1.enumerated() {
            guard let table = try? tableOffset(entry), table != 0,
                table / geometry.clusterSize < references.end
            else { continue }
            let isSole = references.count(of: table / geometry.clusterSize) == 1
            if isSole != (entry & QCOW2Geometry.copied != 0) {
                wrong.append(
                    (header.l1Offset + UInt64(index) * 8, entry ^ QCOW2Geometry.copied))
            }
            guard wrong.count < Self.mendLimit else { break }
            guard seen.insert(table).inserted else { continue }
            try addWrongFlags(of: table, references, &wrong)
        }
        return wrong
    }

    private func addWrongFlags(
        of table: UInt64, _ references: QCOW2References,
        _ wrong: inout [(place: UInt64, entry: UInt64)]
    ) throws(ImageError) {
        let end = table + geometry.clusterSize
        let data = try hosted { () throws(HostError) in try file.allocatedRange(from: table) }
        guard let data, data.lowerBound < end else { return }
        for place in stride(from: max(table, data.lowerBound & ~7), to: end, by: 8) {
            let entry = try hosted { () throws(HostError) in try tables.load64(at: place) }
            guard entry != 0,
                let mapping = QCOW2Mapping(entry: entry, version: header.version, geometry)
            else { continue }
            let isCopied = entry & QCOW2Geometry.copied != 0
            let isRight: Bool
            switch mapping {
            case .unallocated, .zeros(nil, _): continue
            case .compressed: isRight = !isCopied
            case .zeros(let host?, _), .data(let host, _):
                isRight = isCopied == (references.count(of: host / geometry.clusterSize) == 1)
            }
            if !isRight { wrong.append((place, entry ^ QCOW2Geometry.copied)) }
        }
    }

    private func mendCopiedFlags() throws(ImageError) {
        var checker = try QCOW2Checker(self)
        try checker.count(withRefcounts: true)
        for (place, entry) in try wrongCopiedFlags(checker.references) {
            let l1End = header.l1Offset + UInt64(l1.count) * 8
            if (header.l1Offset..<l1End).contains(place) {
                let index = Int((place - header.l1Offset) / 8)
                l1[index] = entry
                dirtyL1.insert(index / 64)
            } else {
                try hosted { () throws(HostError) in try tables.store64(entry, at: place) }
                if tables.isCrowded { try writeMetadata() }
            }
        }
    }

    /// Writes a whole new set of refcounts behind the file's end; the header names the one or the
    /// other.
    private func rebuildRefcounts() throws(ImageError) {
        var checker = try QCOW2Checker(self)
        try checker.count(withRefcounts: false)
        let plan = try QCOW2RefcountPlan(
            checker.references, geometry,
            from: geometry.clusters(try hosted { () throws(HostError) in try file.byteCount() }))
        let clusterSize = geometry.clusterSize
        for (position, index) in plan.blocks.enumerated() {
            let bytes = plan.block(index)
            let offset = (plan.blocksStart + UInt64(position)) * clusterSize
            try hosted { () throws(HostError) in try file.write(bytes, at: offset) }
        }
        let table = plan.table()
        var moved = header
        moved.refcountTableOffset = plan.start * clusterSize
        moved.refcountTableClusters = UInt32(plan.tableClusters)
        try hosted { () throws(HostError) in
            try file.write(table.bigEndianBytes(), at: moved.refcountTableOffset)
            try file.synchronize()
        }
        try storeHeader(moved)
        refcounts = QCOW2Refcounts(
            file, geometry, table: table, tableOffset: moved.refcountTableOffset,
            fileByteCount: plan.end * clusterSize)
    }
}

/// A new refcount table and its blocks, in a row from `start` on.
struct QCOW2RefcountPlan {
    let start: UInt64
    let tableClusters: UInt64
    /// The indexes of the blocks in the table, in the order of their places.
    let blocks: [UInt64]
    var blocksStart: UInt64 { start + tableClusters }
    var end: UInt64 { blocksStart + UInt64(blocks.count) }
    private let geometry: QCOW2Geometry
    private let references: QCOW2References

    init(
        _ references: QCOW2References, _ geometry: QCOW2Geometry, from start: UInt64
    ) throws(ImageError) {
        let perBlock = geometry.refcountsPerBlock
        var indexes: Set<UInt64> = []
        try references.forEach { (cluster, _) throws(ImageError) in
            indexes.insert(cluster / perBlock)
        }
        var clusters: UInt64 = 1
        while true {
            let total = clusters + UInt64(indexes.count)
            let own = start / perBlock...(start + total - 1) / perBlock
            let known = indexes.count
            indexes.formUnion(own)
            let needed = geometry.clusters((own.upperBound + 1) * 8)
            if known == indexes.count, needed <= clusters { break }
            clusters = max(clusters, needed)
            guard clusters * geometry.clusterSize <= QCOW2Geometry.refcountTableLimit else {
                throw .unsupported("a file too long for its cluster size")
            }
        }
        self.start = start
        self.geometry = geometry
        self.references = references
        tableClusters = clusters
        blocks = indexes.sorted()
    }

    func table() -> [UInt64] {
        var table = [UInt64](repeating: 0, count: Int(tableClusters * geometry.tableEntries))
        for (position, index) in blocks.enumerated() {
            table[Int(index)] = (blocksStart + UInt64(position)) * geometry.clusterSize
        }
        return table
    }

    func block(_ index: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(geometry.clusterSize))
        for inside in 0..<geometry.refcountsPerBlock {
            let cluster = index * geometry.refcountsPerBlock + inside
            let count = (start..<end).contains(cluster) ? 1 : references.count(of: cluster)
            guard count > 0 else { continue }
            bytes.setRefcount(
                min(count, geometry.refcountLimit), order: geometry.refcountOrder, at: inside)
        }
        return bytes
    }
}
