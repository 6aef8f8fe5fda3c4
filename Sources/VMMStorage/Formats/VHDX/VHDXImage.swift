import VMMHost

/// A VHDX, fixed or dynamic (MS-VHDX 8.0): blocks of 1 to 256 MiB, a table of where they lie, and a
/// log that the table's changes go through.
///
/// The table is written at `flush`, after the blocks that it points to. A killed writer leaves a
/// log to be replayed, which happens when the image is opened for writing; a reader is told so.
package final class VHDXImage: MappedImage {
    package let format = ImageFormat.vhdx
    package let isReadOnly: Bool
    package let files: [any ImageFile]
    package let extents: ExtentMap
    package var byteCount: UInt64 { layout.diskByteCount }
    /// How much of the disk one block holds.
    package var blockByteCount: UInt64 { layout.blockByteCount }
    package var logicalBlockSize: UInt32 { UInt32(layout.logicalSectorByteCount) }

    package var summary: ImageSummary {
        var summary = ImageSummary()
        summary.unitByteCount = blockByteCount
        return summary
    }

    private let file: any ImageFile
    private let layout: VHDXLayout
    private var header: VHDXHeader
    private var log: VHDXLog
    private var table: TablePages
    /// The file's size; the next block goes behind it.
    private var fileEnd: UInt64

    package init(_ file: any ImageFile) throws(ImageError) {
        self.file = file
        files = [file]
        isReadOnly = file.isReadOnly
        header = try VHDXHeader(of: file)
        log = try VHDXLog(file, header)
        let hadLog = header.logID != .zero
        if hadLog {
            guard !isReadOnly else {
                throw .invalid("has changes in its log; open it for writing once to apply them")
            }
            header.renew()
            try header.write(on: file)
            try log.replay(header.logID)
            header.setLogID(.zero)
            try header.write(on: file)
        }
        layout = try VHDXLayout(of: file, log: log.range)
        fileEnd = try hosted { () throws(HostError) in try file.byteCount() }
        extents = ExtentMap(granule: layout.blockByteCount)
        table = TablePages(
            file, offset: layout.table.lowerBound,
            count: layout.tableByteCount.roundedUp(to: UInt64(TablePages.pageByteCount)))
        if !isReadOnly, !hadLog {
            header.renew()
            try header.write(on: file)
        }
    }

    // MARK: blocks

    /// MS-VHDX 2.5.1.1, "payload block states".
    private enum State: UInt64 {
        case notPresent = 0
        case undefined = 1
        case zero = 2
        case unmapped = 3
        case present = 6
        case partiallyPresent = 7

        static let mask: UInt64 = 7
    }

    package func locate(at offset: UInt64, limit: UInt64) throws(ImageError) -> ExtentMap.Extent {
        let known = extents.extent(at: offset, limit: limit)
        guard known.place == .unknown else { return known }
        let block = offset / blockByteCount
        let inside = offset % blockByteCount
        let start = try start(of: block)
        let place = publish(block, start)
        let count = min(limit, blockByteCount - inside)
        guard case .data(let file, let start, let isWritable) = place else {
            return .init(place, count: count)
        }
        return .init(
            .data(file: file, offset: start + inside, isWritable: isWritable), count: count)
    }

    package func makeRoom(at offset: UInt64) throws(ImageError) {
        let block = offset / blockByteCount
        let known = try start(of: block)
        let start = if let known { known } else { try add(block) }
        publish(block, start)
    }

    @discardableResult
    private func publish(_ block: UInt64, _ start: UInt64?) -> ExtentMap.Place {
        let place: ExtentMap.Place =
            start.map { .data(file: 0, offset: $0, isWritable: !isReadOnly) } ?? .zeros
        extents.publish(place, at: block * blockByteCount, count: blockByteCount)
        return place
    }

    /// Where the block's bytes lie; nil: it has none and reads as zeros.
    private func start(of block: UInt64) throws(ImageError) -> UInt64? {
        let (page, index) = try table.page(at: layout.entryPosition(block))
        let entry = page.littleEndian(UInt64.self, at: index)
        switch State(rawValue: entry & State.mask) {
        case .notPresent, .undefined, .zero, .unmapped: return nil
        case .present: break
        case .partiallyPresent:
            throw .corrupt("block \(block) is partly in a parent, which the image has not")
        case nil:
            throw .corrupt("block \(block) is in the unknown state \(entry & State.mask)")
        }
        let start = entry & ~(VHDXLayout.alignment - 1)
        guard isSound(start, block) else {
            throw .corrupt("block \(block) lies at \(start), where no block can be")
        }
        return start
    }

    /// Whether a block may lie at `start`: behind no structure and inside the file, as far as the
    /// disk reaches into it (QEMU ends the file there).
    private func isSound(_ start: UInt64, _ block: UInt64) -> Bool {
        let (end, overflows) = start.addingReportingOverflow(usedByteCount(block))
        guard !overflows, end <= fileEnd else { return false }
        let structures = [0..<VHDXLayout.alignment, log.range, layout.table, layout.metadata]
        return !structures.contains { $0.overlaps(start..<end) }
    }

    private func usedByteCount(_ block: UInt64) -> UInt64 {
        min(blockByteCount, byteCount - block * blockByteCount)
    }

    /// Room for a block at the file's end, all zeros: it is what the file gains.
    private func add(_ block: UInt64) throws(ImageError) -> UInt64 {
        // First: where a flush fails, the pages that wait for one do not grow more.
        if table.changedCount >= Self.changeLimit { try flush() }
        let start = fileEnd.roundedUp(to: VHDXLayout.alignment)
        try hosted { () throws(HostError) in try file.resize(to: start + blockByteCount) }
        fileEnd = start + blockByteCount
        var entry = [UInt8](repeating: 0, count: Int(VHDXLayout.entryByteCount))
        entry.storeLittleEndian(start | State.present.rawValue, at: 0)
        try table.store(entry, at: layout.entryPosition(block))
        extents.setUnflushedMetadata(true)
        return start
    }

    /// 2 MiB of changed pages wait for a flush at most.
    private static let changeLimit = 512

    // MARK: DiskImage

    package func flush() throws(ImageError) {
        try hosted { () throws(HostError) in try file.synchronize() }
        while table.changedCount > 0 {
            let changes = table.changes(limit: VHDXLog.pageLimit)
            try log.append(changes, end: fileEnd, &header)
            try hosted { () throws(HostError) in
                for change in changes { try file.write(change.bytes, at: change.offset) }
                try file.synchronize()
            }
            table.settle(changes.count)
        }
        extents.setUnflushedMetadata(false)
    }

    package func resize(to byteCount: UInt64) throws(ImageError) {
        throw .invalid("a VHDX cannot be resized; convert it")
    }

    package func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck {
        var result = ImageCheck()
        result.totalUnits = layout.blockCount
        result.endOffset = fileEnd
        guard fileEnd <= 2 * VHDXLayout.diskLimit else {
            throw .unsupported("a file of more than 128 TiB")
        }
        // A bit for each 1 MiB of the file: at most 16 MiB of them.
        let unit = VHDXLayout.alignment
        var used = [UInt8](repeating: 0, count: Int(fileEnd / unit / 8) + 1)
        var next: UInt64 = 0
        while next < layout.blockCount {
            let block = next
            next += 1
            do throws(ImageError) {
                if let other = try blockBehindEmptyPage(block) {
                    next = other
                    continue
                }
                guard let start = try start(of: block) else { continue }
                result.allocatedUnits += 1
                var overlaps = false
                let end = (start + usedByteCount(block)).roundedUp(to: unit)
                for index in start / unit..<end / unit {
                    let bit = 1 << UInt8(index % 8)
                    overlaps = overlaps || used[Int(index / 8)] & UInt8(bit) != 0
                    used[Int(index / 8)] |= UInt8(bit)
                }
                guard overlaps else { continue }
                throw .corrupt("block \(block) overlaps one before it")
            } catch .corrupt(let finding) {
                result.corruptions += 1
                result.add(finding)
            }
        }
        return result
    }

    /// Where to go on if the page of the table that begins with this block's entry has zeros only,
    /// "not present": a small file may have the table of 64 TiB.
    private func blockBehindEmptyPage(_ block: UInt64) throws(ImageError) -> UInt64? {
        let (page, index) = try table.page(at: layout.entryPosition(block))
        guard index < 2 * Int(VHDXLayout.entryByteCount), page.allSatisfy({ $0 == 0 }) else {
            return nil
        }
        return layout.firstBlock(
            from: layout.entryPosition(block) - UInt64(index) + UInt64(page.count))
    }

    /// Leaves a log that nobody has to replay.
    package func close() throws(ImageError) {
        guard !isReadOnly else { return }
        try flush()
        guard header.logID != .zero else { return }
        header.setLogID(.zero)
        try header.write(on: file)
    }
}
