import VMMHost

/// Writing: in place where the cluster is this disk's alone, else into a new cluster.
extension QCOW2Image {
    /// What content is copied in.
    private static let chunk = 64 << 10

    package func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(ImageError) {
        try requireInside(offset, UInt64(bytes.count))
        try requireWritable()
        try store(bytes, at: offset)
    }

    func store(_ bytes: Span<UInt8>, at offset: UInt64) throws(ImageError) {
        var done = 0
        while done < bytes.count {
            try keepRoom()
            let position = offset + UInt64(done)
            let run = try run(at: position, limit: UInt64(bytes.count - done))
            if case .data(let host, let isCopied) = run.mapping, try requireOwn(host, isCopied) {
                let count = try ownCount(run)
                try hosted { () throws(HostError) in
                    try file.write(bytes.extracting(done..<done + count), at: run.host)
                }
                learn(position, run)
                done += count
            } else {
                done += try replace(bytes.extracting(done...), at: position)
            }
        }
    }

    // MARK: ownership

    /// Whether a cluster is referred to by the active L2 table alone, and holds no table.
    func isOwn(_ host: UInt64, _ isCopied: Bool) -> Bool {
        let cluster = host / geometry.clusterSize
        return isCopied && !refcounts.metadata.contains(cluster)
            && (try? refcounts.count(of: cluster)) == 1
    }

    /// As `isOwn`; marks the image as corrupt when its tables contradict each other there.
    func requireOwn(_ host: UInt64, _ isCopied: Bool) throws(ImageError) -> Bool {
        let cluster = host / geometry.clusterSize
        guard !refcounts.metadata.contains(cluster) else {
            throw contradiction("guest data at \(host) lies where a table is")
        }
        switch try refcounts.count(of: cluster) {
        case 0: throw contradiction("the cluster at \(host) is used but counted as free")
        case 1: return isCopied
        default: return false
        }
    }

    /// How many bytes of the run lie in clusters that are this disk's alone, the first being so.
    func ownCount(_ run: Run) throws(ImageError) -> Int {
        guard case .data(_, let isCopied) = run.mapping else { return 0 }
        let clusterSize = geometry.clusterSize
        var end = (run.host / clusterSize + 1) * clusterSize
        while end < run.host + run.count, try requireOwn(end, isCopied) { end += clusterSize }
        return Int(min(end - run.host, run.count))
    }

    // MARK: new clusters

    /// Writes as many of `bytes` as get room in one step; `offset` lies in a cluster that cannot be
    /// written in place. Returns how many.
    private func replace(_ bytes: Span<UInt8>, at offset: UInt64) throws(ImageError) -> Int {
        let clusterSize = geometry.clusterSize
        extents.setUnflushedMetadata(true)
        let table = try ownTable(for: offset)
        let start = offset / clusterSize * clusterSize
        let old = try replaceable(from: start, to: offset + UInt64(bytes.count))
        let room = try room(for: old)
        let end = start + (room.clusters.upperBound - room.clusters.lowerBound) * clusterSize
        let count = min(UInt64(bytes.count), end - offset)
        let host = room.clusters.lowerBound * clusterSize
        do throws(ImageError) {
            try fill(start..<offset, at: host, isFresh: room.isFresh)
            try fill(
                offset + count..<end, at: host + (offset + count - start), isFresh: room.isFresh)
            try hosted { () throws(HostError) in
                try file.write(bytes.extracting(0..<Int(count)), at: host + (offset - start))
            }
        } catch {
            if !room.isKept { refcounts.undo(room.clusters) }
            throw error
        }
        defer { publish(start..<end) }
        for (index, cluster) in room.clusters.enumerated() {
            let position = start + UInt64(index) * clusterSize
            try setEntry(cluster * clusterSize | QCOW2Geometry.copied, in: table, at: position)
            if !room.isKept { release(old[index]) }
        }
        return Int(count)
    }

    /// Gives clusters from `offset` on, the start of an unallocated one, room without content: as
    /// many as one step does. Returns the offset behind.
    func allocateEmpty(at offset: UInt64) throws(ImageError) -> UInt64 {
        try keepRoom()
        extents.setUnflushedMetadata(true)
        let clusterSize = geometry.clusterSize
        let table = try ownTable(for: offset)
        let old = try replaceable(from: offset, to: byteCount)
        let room = try room(for: old)
        for (index, cluster) in room.clusters.enumerated() {
            let position = offset + UInt64(index) * clusterSize
            // The zero flag until it is written: the cluster may hold anything.
            let flag = room.isFresh ? 0 : QCOW2Geometry.zero
            try setEntry(
                cluster * clusterSize | QCOW2Geometry.copied | flag, in: table, at: position)
        }
        return offset + (room.clusters.upperBound - room.clusters.lowerBound) * clusterSize
    }

    /// What the clusters are that a write of the range has to replace, up to the first it need not,
    /// to the end of their L2 table and to what a step may take of memory.
    private func replaceable(
        from start: UInt64, to end: UInt64
    ) throws(ImageError) -> [QCOW2Mapping] {
        let clusterSize = geometry.clusterSize
        let coverage = geometry.tableCoverage
        let limit = min(end, (start / coverage + 1) * coverage, start + 512 * clusterSize)
        var result = [try mapping(at: start)]
        if case .zeros(.some, true) = result[0] { return result }
        var next = start + clusterSize
        while next < limit, let mapping = try? mapping(at: next) {
            switch mapping {
            case .zeros(.some, true): return result
            case .data(_, true): return result
            default: result.append(mapping)
            }
            next += clusterSize
        }
        return result
    }

    /// Clusters to put content into.
    private struct Room {
        let clusters: Range<UInt64>
        /// They read as zeros.
        let isFresh: Bool
        /// They belong to the guest's cluster already.
        let isKept: Bool
    }

    private func room(for old: [QCOW2Mapping]) throws(ImageError) -> Room {
        if case .zeros(let host?, let isCopied) = old[0], try requireOwn(host, isCopied) {
            let cluster = host / geometry.clusterSize
            return Room(clusters: cluster..<cluster + 1, isFresh: false, isKept: true)
        }
        let fresh = refcounts.freshFrom
        let clusters = try allocate(UInt64(old.count))
        return Room(clusters: clusters, isFresh: clusters.lowerBound >= fresh, isKept: false)
    }

    /// Between 1 and `limit` clusters in a row.
    func allocate(_ limit: UInt64) throws(ImageError) -> Range<UInt64> {
        if let clusters = try refcounts.allocate(limit) { return clusters }
        try growRefcountTable()
        guard let clusters = try refcounts.allocate(limit) else {
            throw .invalid("has no room for more reference counts")
        }
        return clusters
    }

    /// Brings the guest's bytes of `range`, inside one cluster, to `host`.
    private func fill(_ range: Range<UInt64>, at host: UInt64, isFresh: Bool) throws(ImageError) {
        guard !range.isEmpty else { return }
        let count = range.upperBound - range.lowerBound
        if try readsAsZeros(range.lowerBound) {
            guard !isFresh else { return }
            try hosted { () throws(HostError) in
                try file.writeZeros(at: host, count: count, mayUnmap: false)
            }
            return
        }
        var done: UInt64 = 0
        var bytes = [UInt8](repeating: 0, count: Int(min(count, UInt64(Self.chunk))))
        while done < count {
            let step = Int(min(count - done, UInt64(bytes.count)))
            var all = bytes.mutableSpan
            var span = all._mutatingExtracting(0..<step)
            try fetch(into: &span, at: range.lowerBound + done)
            let part = bytes.span.extracting(0..<step)
            try hosted { () throws(HostError) in try file.write(part, at: host + done) }
            done += UInt64(step)
        }
    }

    /// Whether the tables alone tell that the cluster from `offset` on is zeros.
    func readsAsZeros(_ offset: UInt64) throws(ImageError) -> Bool {
        switch try mapping(at: offset) {
        case .zeros: true
        case .unallocated: offset >= (backing?.byteCount ?? 0)
        case .data, .compressed: false
        }
    }

    // MARK: tables

    /// The L2 table that maps `offset`, made or copied if the active L1 table has none of its own.
    func ownTable(for offset: UInt64) throws(ImageError) -> UInt64 {
        let index = Int(offset / geometry.tableCoverage)
        guard index < l1.count else { throw .outOfRange }
        let old = try tableOffset(l1[index])
        if old != 0, try isOwnTable(old, l1[index]) { return old }
        let fresh = refcounts.freshFrom
        let clusters = try allocate(1)
        let table = clusters.lowerBound * geometry.clusterSize
        tables.forget(table..<table + geometry.clusterSize)
        do throws(ImageError) {
            if old != 0 {
                try copyTable(old, to: table)
            } else if clusters.lowerBound < fresh {
                try hosted { () throws(HostError) in
                    try file.writeZeros(at: table, count: geometry.clusterSize, mayUnmap: false)
                }
            }
        } catch {
            refcounts.undo(clusters)
            throw error
        }
        refcounts.metadata.insert(clusters.lowerBound)
        l1[index] = table | QCOW2Geometry.copied
        dirtyL1.insert(index / 64)
        if old != 0 { refcounts.release(old, isData: false) }
        return table
    }

    private func isOwnTable(_ table: UInt64, _ entry: UInt64) throws(ImageError) -> Bool {
        switch try refcounts.count(of: table / geometry.clusterSize) {
        case 0: throw contradiction("the L2 table at \(table) is counted as free")
        case 1: return entry & QCOW2Geometry.copied != 0
        default: return false
        }
    }

    /// A table that others share was never changed here: the file has it as it is.
    private func copyTable(_ old: UInt64, to table: UInt64) throws(ImageError) {
        let count = min(Self.chunk, Int(geometry.clusterSize))
        var bytes = [UInt8](repeating: 0, count: count)
        for offset in stride(from: 0, to: geometry.clusterSize, by: count) {
            try hosted { () throws(HostError) in
                var span = bytes.mutableSpan
                try file.readPadded(into: &span, at: old + offset)
                try file.write(bytes, at: table + offset)
            }
        }
    }

    func setEntry(_ entry: UInt64, in table: UInt64, at offset: UInt64) throws(ImageError) {
        let place = table + offset % geometry.tableCoverage / geometry.clusterSize * 8
        try hosted { () throws(HostError) in try tables.store64(entry, at: place) }
    }

    /// The active table refers to this no more.
    func release(_ old: QCOW2Mapping) {
        switch old {
        case .unallocated, .zeros(nil, _): return
        case .zeros(let host?, _), .data(let host, _): refcounts.release(host, isData: true)
        case .compressed(let host, let count):
            unpacked = nil
            packEnd = nil
            refcounts.release(host, count: UInt64(count), isData: false)
        }
    }
}
