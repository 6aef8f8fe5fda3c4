import VMMHost

/// A VHD that gives its disk's blocks room as they are written. Each block is a bitmap, which says
/// which of its sectors were ever written, and its bytes.
///
/// The table of blocks is written at `flush`, after what it points to is on stable storage: a power
/// cut costs unused blocks at the file's end, or the footer there, of which the start has a copy.
package final class DynamicVHDImage: MappedImage {
    package let format = ImageFormat.vhd
    package let byteCount: UInt64
    package let isReadOnly: Bool
    package let files: [any ImageFile]
    package let extents: ExtentMap
    /// How much of the disk one block holds.
    package var blockByteCount: UInt64 { header.blockByteCount }

    /// A block with sectors that were never written keeps its room as a whole.
    package var discardUnit: UInt64 { blockByteCount }

    package var summary: ImageSummary {
        var summary = ImageSummary()
        summary.unitByteCount = blockByteCount
        return summary
    }

    private let file: any ImageFile
    private let footer: VHDFooter
    private let header: VHDDynamicHeader
    private var table: TablePages
    /// One past the last block: where the footer lies until there is another block.
    private var blocksEnd: UInt64

    init(_ file: any ImageFile, _ footer: VHDFooter, blocksEnd: UInt64) throws(ImageError) {
        header = try VHDDynamicHeader(of: file, footer, end: blocksEnd)
        self.file = file
        self.footer = footer
        self.blocksEnd = blocksEnd.roundedUp(to: 512)
        byteCount = footer.diskByteCount
        files = [file]
        isReadOnly = file.isReadOnly
        extents = ExtentMap(granule: header.blockByteCount)
        table = TablePages(
            file, offset: header.tableOffset, count: header.entryCount * UInt64(Self.entrySize))
    }

    private static let entrySize = 4

    // MARK: blocks

    package func locate(at offset: UInt64, limit: UInt64) throws(ImageError) -> ExtentMap.Extent {
        let known = extents.extent(at: offset, limit: limit)
        guard known.place == .unknown else { return known }
        let block = offset / blockByteCount
        let inside = offset % blockByteCount
        let count = min(limit, blockByteCount - inside)
        guard let start = try start(of: block) else {
            extents.publish(.zeros, at: block * blockByteCount, count: blockByteCount)
            return .init(.zeros, count: count)
        }
        let data = start + header.bitmapByteCount
        let bitmap = try VHDSectorBitmap(of: file, at: start, blockByteCount: blockByteCount)
        if bitmap.isFull {
            publish(block, data)
            return .init(
                .data(file: 0, offset: data + inside, isWritable: !isReadOnly), count: count)
        }
        let run = bitmap.run(at: inside)
        // Not writable before the bitmap is full, so that engines never have to care for it.
        return .init(
            run.isWritten ? .data(file: 0, offset: data + inside, isWritable: false) : .zeros,
            count: min(count, run.count))
    }

    package func makeRoom(at offset: UInt64) throws(ImageError) {
        let block = offset / blockByteCount
        let start: UInt64
        if let known = try self.start(of: block) {
            start = known
            try complete(start)
        } else {
            start = try add(block)
        }
        publish(block, start + header.bitmapByteCount)
    }

    private func publish(_ block: UInt64, _ data: UInt64) {
        extents.publish(
            .data(file: 0, offset: data, isWritable: !isReadOnly),
            at: block * blockByteCount, count: blockByteCount)
    }

    /// Where the block's bitmap lies; nil when the block has no room.
    private func start(of block: UInt64) throws(ImageError) -> UInt64? {
        let (page, index) = try table.page(at: block * UInt64(Self.entrySize))
        let entry = page.bigEndian(UInt32.self, at: index)
        guard entry != VHDDynamicHeader.absent else { return nil }
        let start = UInt64(entry) * 512
        guard isSound(start, block) else {
            throw .corrupt("block \(block) lies at \(start), where no block can be")
        }
        return start
    }

    /// Whether a block may lie at `start`: behind no structure and inside the file, as far as the
    /// disk reaches into it.
    private func isSound(_ start: UInt64, _ block: UInt64) -> Bool {
        let used = min(blockByteCount, byteCount - block * blockByteCount)
        let end = start + header.bitmapByteCount + used
        let structures = [
            0..<UInt64(VHDFooter.byteCount),
            footer.headerOffset..<footer.headerOffset + UInt64(VHDDynamicHeader.byteCount),
            header.tableOffset..<header.tableEnd,
        ]
        return end <= blocksEnd && !structures.contains { $0.overlaps(start..<end) }
    }

    /// Room for a block at the file's end, all zeros: what the file gains reads as zeros. The
    /// block's bytes, not its bitmap, begin at a page, so that a guest's pages are the file's.
    private func add(_ block: UInt64) throws(ImageError) -> UInt64 {
        let start =
            (blocksEnd + header.bitmapByteCount).roundedUp(to: 4096)
            - header.bitmapByteCount
        let end = start + header.bitmapByteCount + blockByteCount
        guard start / 512 < UInt64(VHDDynamicHeader.absent) else {
            throw .invalid("a VHD's file can grow to 2 TiB only")
        }
        try hosted { () throws(HostError) in
            try file.write(footer.bytes, at: end)
            try file.write(VHDSectorBitmap.full(blockByteCount), at: start)
        }
        var entry = [UInt8](repeating: 0, count: Self.entrySize)
        entry.storeBigEndian(UInt32(start / 512), at: 0)
        try table.store(entry, at: block * UInt64(Self.entrySize))
        blocksEnd = end
        extents.setUnflushedMetadata(true)
        return start
    }

    /// Makes zeros of all sectors that were never written, and says that they were.
    private func complete(_ start: UInt64) throws(ImageError) {
        let data = start + header.bitmapByteCount
        let bitmap = try VHDSectorBitmap(of: file, at: start, blockByteCount: blockByteCount)
        try hosted { () throws(HostError) in
            var inside: UInt64 = 0
            while inside < blockByteCount {
                let run = bitmap.run(at: inside)
                if !run.isWritten {
                    try file.writeZeros(at: data + inside, count: run.count, mayUnmap: true)
                }
                inside += run.count
            }
            try file.synchronize()
            try file.write(VHDSectorBitmap.full(blockByteCount), at: start)
        }
    }

    // MARK: DiskImage

    package func flush() throws(ImageError) {
        try hosted { () throws(HostError) in try file.synchronize() }
        let changes = table.changes(limit: .max)
        guard !changes.isEmpty else { return }
        try hosted { () throws(HostError) in
            for change in changes { try file.write(change.bytes, at: change.offset) }
            try file.synchronize()
        }
        table.settle(changes.count)
        extents.setUnflushedMetadata(false)
    }

    package func resize(to byteCount: UInt64) throws(ImageError) {
        throw .invalid("a VHD cannot be resized; convert it")
    }

    package func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck {
        var result = ImageCheck()
        var starts: [(start: UInt64, block: UInt64)] = []
        result.totalUnits = (byteCount - 1) / blockByteCount + 1
        for block in 0..<result.totalUnits {
            do throws(ImageError) {
                if let start = try start(of: block) { starts.append((start, block)) }
            } catch .corrupt(let finding) {
                result.corruptions += 1
                result.add(finding)
            }
        }
        starts.sort { $0.start < $1.start }
        result.allocatedUnits = UInt64(starts.count)
        for (first, second) in zip(starts, starts.dropFirst())
        where second.start - first.start < header.bitmapByteCount + blockByteCount {
            result.corruptions += 1
            result.add("blocks \(first.block) and \(second.block) overlap")
        }
        result.endOffset = blocksEnd + UInt64(VHDFooter.byteCount)
        return result
    }

    /// The footer is written even if nothing else was: the file may have come without it.
    package func close() throws(ImageError) {
        guard !isReadOnly else { return }
        try hosted { () throws(HostError) in try file.write(footer.bytes, at: blocksEnd) }
        try flush()
    }
}
