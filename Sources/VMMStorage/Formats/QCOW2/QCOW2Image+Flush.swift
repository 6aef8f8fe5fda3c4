import VMMHost

/// The order in which changed tables reach the file (decision 0013). Whatever a power cut leaves of
/// it, a table on the disk refers to nothing that is not there and counted.
extension QCOW2Image {
    package func flush() throws(ImageError) {
        guard !file.isReadOnly else { return }
        if isDirty { try writeMetadata() } else { try synchronize() }
        extents.setUnflushedMetadata(false)
    }

    private var isDirty: Bool {
        refcounts.isDirty || tables.dirtyCount > 0 || !dirtyL1.isEmpty
    }

    /// Called before each step of a change: writes the tables out when they fill their room.
    func keepRoom() throws(ImageError) {
        if tables.isCrowded || refcounts.isCrowded { try writeMetadata() }
    }

    private func synchronize() throws(ImageError) {
        try hosted { () throws(HostError) in try file.synchronize() }
    }

    /// Each step ends on stable storage before the next begins; what fails is repeated next time.
    func writeMetadata() throws(ImageError) {
        // Data, new tables, and counts that only grew. Readers count on whole clusters.
        try extendFile()
        try hosted { () throws(HostError) in try refcounts.cache.writeDirty() }
        try synchronize()
        refcounts.cache.markClean()
        if refcounts.hasNewBlocks {
            try hosted { () throws(HostError) in try refcounts.writeTable() }
            try synchronize()
            refcounts.markTableClean()
        }
        if tables.dirtyCount > 0 {
            try hosted { () throws(HostError) in try tables.writeDirty() }
            try synchronize()
            tables.markClean()
        }
        if !dirtyL1.isEmpty {
            try writeL1()
            try synchronize()
            dirtyL1 = []
        }
        // Nothing on the disk refers to what was released. A count that stays too high by a power
        // cut is a leak, so this waits for nobody.
        try refcounts.settle()
        try hosted { () throws(HostError) in try refcounts.cache.writeDirty() }
        refcounts.cache.markClean()
    }

    private func extendFile() throws(ImageError) {
        try hosted { () throws(HostError) in
            let end = refcounts.endOffset
            if try file.byteCount() < end { try file.resize(to: end) }
        }
    }

    private func writeL1() throws(ImageError) {
        try hosted { () throws(HostError) in
            for sector in dirtyL1.sorted() {
                let entries = Array(l1[sector * 64..<min(l1.count, sector * 64 + 64)])
                try file.write(
                    entries.bigEndianBytes(), at: header.l1Offset + UInt64(sector) * 512)
            }
        }
    }

    /// Moves the refcount table to a longer one behind everything that it can count.
    func growRefcountTable() throws(ImageError) {
        try writeMetadata()
        guard let growth = refcounts.growth() else {
            throw .invalid("has no room for more reference counts")
        }
        let clusterSize = geometry.clusterSize
        let start = growth.clusters.lowerBound * clusterSize
        try hosted { () throws(HostError) in
            try file.write(growth.bytes, at: start)
            try file.synchronize()
        }
        var moved = header
        moved.refcountTableOffset = growth.table.lowerBound * clusterSize
        moved.refcountTableClusters = UInt32(growth.table.upperBound - growth.table.lowerBound)
        try storeHeader(moved)
        let blocks = (growth.table.lowerBound - growth.clusters.lowerBound) * clusterSize
        refcounts.adopt(
            Array(growth.bytes[Int(blocks)...]).bigEndianTable(), at: growth.table,
            end: growth.clusters.upperBound)
    }
}
