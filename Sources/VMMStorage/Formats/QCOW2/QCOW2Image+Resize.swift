import VMMHost

/// A longer disk.
extension QCOW2Image {
    /// Grows the disk. Bytes gained read as zeros, whatever a backing file holds there: they are
    /// made so before the size is changed.
    package func resize(to byteCount: UInt64) throws(ImageError) {
        try requireWritable()
        guard byteCount > 0, byteCount % 512 == 0 else {
            throw .invalid("a disk is whole sectors of 512 bytes, at least one")
        }
        guard byteCount >= header.byteCount else {
            throw .invalid("a qcow2 image cannot be made smaller")
        }
        guard byteCount > header.byteCount else { return }
        guard header.version >= 3 || header.snapshotCount == 0 else {
            throw .invalid("has snapshots, and version 2 does not keep their size")
        }
        let entries = geometry.l1Entries(byteCount)
        guard entries * 8 <= QCOW2Geometry.l1TableLimit else {
            throw .invalid("the disk would be too large for the cluster size")
        }
        try writeMetadata()
        if entries > UInt64(header.l1Entries) { try growL1(to: entries) }
        let start = header.byteCount
        try clearGained(start..<byteCount)
        try flush()
        var grown = header
        grown.byteCount = byteCount
        try storeHeader(grown)
    }

    /// What is left of the last cluster, and what a longer backing file would show.
    private func clearGained(_ range: Range<UInt64>) throws(ImageError) {
        let edge = range.lowerBound.roundedUp(to: geometry.clusterSize)
        let end = min(
            range.upperBound.roundedUp(to: geometry.clusterSize), max(edge, backing?.byteCount ?? 0)
        )
        guard end > range.lowerBound else { return }
        try clear(range.lowerBound, end - range.lowerBound, mayUnmap: true)
    }

    /// Moves the L1 table behind everything else; the header names the new one in one write.
    private func growL1(to entries: UInt64) throws(ImageError) {
        let clusters = geometry.clusters(entries * 8)
        var room = try refcounts.allocateAtEnd(clusters)
        if room == nil {
            try growRefcountTable()
            room = try refcounts.allocateAtEnd(clusters)
        }
        guard let room else { throw .invalid("has no room for more reference counts") }
        // The room that the last cluster leaves is used up, so that growing often moves seldom.
        let count = min(clusters * geometry.tableEntries, QCOW2Geometry.l1TableLimit / 8)
        let table = l1 + [UInt64](repeating: 0, count: Int(count) - l1.count)
        let old = header.l1Offset..<header.l1Offset + UInt64(l1.count) * 8
        var moved = header
        moved.l1Offset = room.lowerBound * geometry.clusterSize
        moved.l1Entries = UInt32(count)
        do throws(ImageError) {
            try hosted { () throws(HostError) in
                try file.write(table.bigEndianBytes(), at: moved.l1Offset)
            }
            try writeMetadata()
        } catch {
            refcounts.undo(room)
            throw error
        }
        try storeHeader(moved)
        l1 = table
        for cluster in room { refcounts.metadata.insert(cluster) }
        guard !old.isEmpty else { return }
        refcounts.release(old.lowerBound, count: old.upperBound - old.lowerBound, isData: false)
    }
}
