import VMMHost

/// How often each cluster of a qcow2 file is referred to, and which are free. The counts here are
/// never lower than what the tables on the disk need: references are counted before they are made,
/// and `release` waits until `settle`, which the image calls when their end is durable.
///
/// Counts are kept exact at every flush, so that `lazy_refcounts` needs nothing: it allows an image
/// to let them lag behind a dirty bit, and asks nobody to.
final class QCOW2Refcounts {
    let geometry: QCOW2Geometry
    private let file: any ImageFile
    let cache: QCOW2TableCache
    /// Offsets of the blocks that hold the counts; 0 where there is none yet.
    private(set) var table: [UInt64]
    private(set) var tableOffset: UInt64
    /// Sectors of the table that differ from the file.
    private var dirtySectors: Set<Int> = []
    /// No cluster below is free, but for ones released since.
    private var firstFree: UInt64 = 1
    /// From here on no cluster was ever used while the file was open, nor existed before: it reads
    /// as zeros.
    private(set) var freshFrom: UInt64
    /// Nothing was found free in a long search: there will be no second one.
    private var isFull = false
    /// References given up whose end is not durable yet.
    private var released: [(cluster: UInt64, isData: Bool)] = []
    /// Free, but once published as guest data: not to be given out while the image is open.
    private var retired: Set<UInt64> = []
    /// Clusters that tables lie in; guest data must never get there.
    var metadata: Set<UInt64> = []

    /// Enough to make flushes rare, and 64 KiB.
    private static let releasedLimit = 4096
    /// Only contradictory images retire clusters; what is above is leaked instead.
    private static let retiredLimit = 65536

    init(
        _ file: any ImageFile, _ geometry: QCOW2Geometry, table: [UInt64], tableOffset: UInt64,
        fileByteCount: UInt64
    ) {
        self.file = file
        self.geometry = geometry
        self.table = table
        self.tableOffset = tableOffset
        cache = QCOW2TableCache(file, pieceSize: geometry.pieceSize)
        freshFrom = geometry.clusters(fileByteCount)
    }

    var isDirty: Bool { cache.dirtyCount > 0 || !dirtySectors.isEmpty || !released.isEmpty }
    var isCrowded: Bool { cache.isCrowded || released.count >= Self.releasedLimit }
    /// One past the last byte that has been given out: as long the file has to be.
    var endOffset: UInt64 { freshFrom * geometry.clusterSize }

    // MARK: counts

    /// The references to a cluster; 0 where nothing is counted. A block that cannot be one throws.
    func count(of cluster: UInt64) throws(ImageError) -> UInt64 {
        let index = cluster / geometry.refcountsPerBlock
        guard index < UInt64(table.count), table[Int(index)] != 0 else { return 0 }
        let block = try block(Int(index))
        return try hosted { () throws(HostError) in
            try cache.load(
                width: 1 << geometry.refcountOrder, index: cluster % geometry.refcountsPerBlock,
                at: block)
        }
    }

    /// The caller made sure that the cluster's block exists.
    func set(_ count: UInt64, of cluster: UInt64) throws(ImageError) {
        let block = try block(Int(cluster / geometry.refcountsPerBlock))
        try hosted { () throws(HostError) in
            try cache.store(
                count, width: 1 << geometry.refcountOrder,
                index: cluster % geometry.refcountsPerBlock, at: block)
        }
    }

    private func block(_ index: Int) throws(ImageError) -> UInt64 {
        let entry = table[index]
        guard entry & ~QCOW2Geometry.offsetMask == 0, entry % geometry.clusterSize == 0, entry != 0
        else { throw .corrupt("entry \(index) of the refcount table is \(entry)") }
        return entry
    }

    // MARK: giving out

    /// Counts that one request looks at: of 1 TiB in clusters of 64 KiB, about a second's work.
    var scanLimit: UInt64 = 1 << 24
    private static let full = ImageError.corrupt("its refcounts leave nothing free behind its end")

    /// Between 1 and `limit` clusters in a row, now with one reference each; nil when the refcount
    /// table has to grow first.
    func allocate(_ limit: UInt64) throws(ImageError) -> Range<UInt64>? {
        guard !isFull else { throw Self.full }
        var cluster = firstFree
        var scanned: UInt64 = 0
        while true {
            // Looked at in vain for long enough: there is room behind the file's end. Who counts
            // that as used, too, is not believed.
            if scanned == scanLimit { cluster = max(cluster, freshFrom) }
            if scanned == 2 * scanLimit {
                isFull = true
                throw Self.full
            }
            scanned += 1
            let index = cluster / geometry.refcountsPerBlock
            guard index < UInt64(table.count) else { return nil }
            if table[Int(index)] == 0 {
                // The block describes itself.
                try placeBlock(Int(index), at: cluster)
                cluster += 1
            } else if try isFree(cluster) {
                break
            } else {
                cluster += 1
            }
        }
        let blockEnd = (cluster / geometry.refcountsPerBlock + 1) * geometry.refcountsPerBlock
        var end = cluster
        while end < min(blockEnd, cluster + limit), try isFree(end) {
            try set(1, of: end)
            end += 1
        }
        firstFree = end
        freshFrom = max(freshFrom, end)
        return cluster..<end
    }

    /// `count` clusters in a row behind all others; nil when the refcount table has to grow first.
    func allocateAtEnd(_ count: UInt64) throws(ImageError) -> Range<UInt64>? {
        var start = freshFrom
        while true {
            let last = (start + count - 1) / geometry.refcountsPerBlock
            guard last < UInt64(table.count) else { return nil }
            let indexes = Int(start / geometry.refcountsPerBlock)...Int(last)
            guard let missing = indexes.first(where: { table[$0] == 0 }) else { break }
            try placeBlock(missing, at: start)
            start += 1
        }
        for cluster in start..<start + count { try set(1, of: cluster) }
        freshFrom = start + count
        return start..<start + count
    }

    private func isFree(_ cluster: UInt64) throws(ImageError) -> Bool {
        try count(of: cluster) == 0 && !retired.contains(cluster) && !metadata.contains(cluster)
    }

    /// Puts a new block of zeros at a free cluster that it or an existing block counts.
    private func placeBlock(_ index: Int, at cluster: UInt64) throws(ImageError) {
        let offset = cluster * geometry.clusterSize
        if cluster < freshFrom {
            try hosted { () throws(HostError) in
                try file.writeZeros(at: offset, count: geometry.clusterSize, mayUnmap: false)
            }
        }
        cache.forget(offset..<offset + geometry.clusterSize)
        table[index] = offset
        dirtySectors.insert(index / 64)
        metadata.insert(cluster)
        freshFrom = max(freshFrom, cluster + 1)
        try set(1, of: cluster)
    }

    // MARK: taking back

    /// Takes back what `allocate` gave and no table refers to.
    func undo(_ range: Range<UInt64>) {
        for cluster in range {
            // What cannot be counted now is leaked.
            guard (try? set(0, of: cluster)) != nil else { continue }
            firstFree = min(firstFree, cluster)
        }
    }

    /// One reference to each cluster of the byte range ends with the next flush.
    func release(_ host: UInt64, count: UInt64 = 1, isData: Bool) {
        let clusters = host / geometry.clusterSize...(host + count - 1) / geometry.clusterSize
        for cluster in clusters { released.append((cluster, isData)) }
    }

    /// Counts what was released, now that no table on the disk refers to it.
    func settle() throws(ImageError) {
        while let (cluster, isData) = released.last {
            released.removeLast()
            // A count that is 0 already is the image's own contradiction, for a check to find.
            let count = try count(of: cluster)
            guard count > 0 else { continue }
            if count == 1, isData {
                guard retired.count < Self.retiredLimit else { continue }
                retired.insert(cluster)
            }
            try set(count - 1, of: cluster)
            if count == 1 {
                metadata.remove(cluster)
                firstFree = min(firstFree, cluster)
            }
        }
    }

    // MARK: writing

    var hasNewBlocks: Bool { !dirtySectors.isEmpty }

    func writeTable() throws(HostError) {
        for sector in dirtySectors.sorted() {
            let entries = Array(table[sector * 64..<min(table.count, sector * 64 + 64)])
            try file.write(entries.bigEndianBytes(), at: tableOffset + UInt64(sector) * 512)
        }
    }

    func markTableClean() { dirtySectors = [] }

    /// The bytes of a longer table with all its blocks, to be written at a place that the present
    /// table cannot count; nil when the format's limit is reached.
    func growth() -> (bytes: [UInt8], clusters: Range<UInt64>, table: Range<UInt64>)? {
        let clusterSize = geometry.clusterSize
        let perBlock = geometry.refcountsPerBlock
        let start = max(
            UInt64(table.count) * perBlock, freshFrom.roundedUp(to: perBlock))
        let old = geometry.clusters(UInt64(table.count) * 8)
        let firstIndex = start / perBlock
        var clusters = max(old + old / 2, geometry.clusters(firstIndex * 8)) + 1
        let limit = QCOW2Geometry.refcountTableLimit / clusterSize
        guard clusters <= limit else { return nil }
        var blocks: UInt64 = 1
        while blocks * perBlock < blocks + clusters { blocks += 1 }
        clusters = max(clusters, geometry.clusters((firstIndex + blocks) * 8))
        guard clusters <= limit,
            blocks * perBlock >= blocks + clusters
        else { return nil }
        var entries = table
        entries += [UInt64](
            repeating: 0, count: Int(clusters * geometry.tableEntries) - table.count)
        for block in 0..<blocks {
            entries[Int(firstIndex + block)] = (start + block) * clusterSize
        }
        var counts = [UInt8](repeating: 0, count: Int(blocks * clusterSize))
        for cluster in 0..<blocks + clusters {
            counts.setRefcount(1, order: geometry.refcountOrder, at: cluster)
        }
        return (
            counts + entries.bigEndianBytes(), start..<start + blocks + clusters,
            start + blocks..<start + blocks + clusters
        )
    }

    /// The header on the disk names the table of `growth` now.
    func adopt(_ entries: [UInt64], at clusters: Range<UInt64>, end: UInt64) {
        let old = tableOffset..<tableOffset + UInt64(table.count) * 8
        table = entries
        tableOffset = clusters.lowerBound * geometry.clusterSize
        for index in 0..<(end - clusters.lowerBound) {
            metadata.insert(clusters.lowerBound + index)
        }
        for entry in entries where entry != 0 { metadata.insert(entry / geometry.clusterSize) }
        freshFrom = max(freshFrom, end)
        dirtySectors = []
        if old.count > 0 {
            release(old.lowerBound, count: old.upperBound - old.lowerBound, isData: false)
        }
    }
}

extension [UInt8] {
    /// Sets the refcount at `index` of a block's bytes, which are zero there.
    mutating func setRefcount(_ value: UInt64, order: Int, at index: UInt64) {
        let bit = index << UInt64(order)
        let byte = Int(bit / 8)
        if order < 3 {
            self[byte] |= UInt8(truncatingIfNeeded: value) << UInt8(bit % 8)
        } else {
            let width = 1 << (order - 3)
            for place in 0..<width {
                self[byte + place] = UInt8(
                    truncatingIfNeeded: value >> UInt64(8 * (width - 1 - place)))
            }
        }
    }
}
