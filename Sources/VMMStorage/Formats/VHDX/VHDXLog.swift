import VMMHost

/// The log of a VHDX, through which all changes to its tables go: an entry is on stable storage
/// before the tables are touched, and applied again when the file is opened after a cut.
struct VHDXLog {
    /// Pages of one entry: with its own sector a quarter of the smallest log, so that an entry
    /// never lies over the one before it, which may still be needed.
    static let pageLimit = 63
    /// Logs of 1 MiB are what everybody makes; of more than this none is applied.
    private static let replayLimit: UInt64 = 16 << 20
    /// A log is there for tables. On a file system without holes zeros take their time.
    private static let zeroLimit: UInt64 = 1 << 30
    /// The longest file that an entry may ask for: the largest disk and its tables, twice.
    private static let fileLimit: UInt64 = 128 << 40

    let range: Range<UInt64>
    private let file: any ImageFile
    private let id = VHDXIdentifier.random()
    private var sequence: UInt64 = 1
    /// Where the next entry goes, from the log's start.
    private var position: UInt64 = 0

    init(_ file: any ImageFile, _ header: VHDXHeader) throws(ImageError) {
        let (start, count) = (header.logOffset, header.logByteCount)
        let end = try hosted { () throws(HostError) in try file.byteCount() }
        guard start >= VHDXLayout.alignment, start % VHDXLayout.alignment == 0, count > 0,
            count % VHDXLayout.alignment == 0, start <= end, count <= end - start
        else { throw .corrupt("its log is not aligned or lies beyond the file's end") }
        self.file = file
        range = start..<start + count
    }

    // MARK: writing

    /// Puts an entry that says to write `pages` into the log, and makes the header name the log.
    /// `end`: the file's size, which is already on stable storage.
    mutating func append(
        _ pages: [(offset: UInt64, bytes: [UInt8])], end: UInt64, _ header: inout VHDXHeader
    ) throws(ImageError) {
        precondition(pages.count <= Self.pageLimit, "an entry leaves room for the one before it")
        let count = UInt64((pages.count + 1) * VHDXLogEntry.sectorByteCount)
        if position + count > UInt64(range.count) { position = 0 }
        let entry = VHDXLogEntry.bytes(
            pages, id, sequence: sequence, position: position, end: end)
        try hosted { () throws(HostError) in
            try file.write(entry, at: range.lowerBound + position)
            try file.synchronize()
        }
        position += count
        sequence += 1
        if header.logID != id {
            header.setLogID(id)
            try header.write(on: file)
        }
    }

    // MARK: replay

    private struct Entry {
        let position: UInt64
        let outline: VHDXLogEntry.Outline
    }

    /// Does what the log `id` says. Doing it twice is the same as once.
    func replay(_ id: VHDXIdentifier) throws(ImageError) {
        guard range.count <= Self.replayLimit else {
            throw .unsupported("a log of more than 16 MiB")
        }
        var zeroed: UInt64 = 0
        for entry in try sequence(of: try entries(of: id)) {
            let bytes = try bytes(at: entry.position, count: entry.outline.byteCount)
            guard let content = VHDXLogEntry(bytes) else {
                throw .corrupt("its log changed while it was read")
            }
            for change in content.changes where change.sector == nil {
                zeroed += min(change.count, Self.zeroLimit + 1)
                guard zeroed <= Self.zeroLimit else {
                    throw .unsupported("a log that clears more than 1 GiB")
                }
            }
            try apply(content)
        }
        try hosted { () throws(HostError) in try file.synchronize() }
    }

    private func apply(_ entry: VHDXLogEntry) throws(ImageError) {
        var end = try hosted { () throws(HostError) in try file.byteCount() }
        guard entry.flushedEnd <= end, entry.lastEnd <= Self.fileLimit else {
            throw .corrupt("it is shorter than its log says")
        }
        if entry.lastEnd > end {
            end = entry.lastEnd
            try hosted { () throws(HostError) in try file.resize(to: end) }
        }
        for change in entry.changes {
            // What lies past the end reads as zeros anyhow.
            guard change.offset < end else {
                if change.sector == nil { continue }
                throw .corrupt("its log writes beyond the file's end")
            }
            try hosted { () throws(HostError) in
                if let sector = change.sector {
                    try file.write(sector, at: change.offset)
                } else {
                    try file.writeZeros(
                        at: change.offset, count: min(change.count, end - change.offset),
                        mayUnmap: true)
                }
            }
        }
    }

    /// All valid entries by their place.
    private func entries(of id: VHDXIdentifier) throws(ImageError) -> [UInt64: Entry] {
        var result: [UInt64: Entry] = [:]
        var position: UInt64 = 0
        // Beginnings of entries that others were written over may be many, but not at any length.
        var budget = 16 * range.count
        while position < UInt64(range.count) {
            let sector = UInt64(VHDXLogEntry.sectorByteCount)
            let start = try bytes(at: position, count: VHDXLogEntry.headerByteCount)
            guard
                let outline = VHDXLogEntry.Outline(start, id, logByteCount: UInt64(range.count))
            else {
                position += sector
                continue
            }
            budget -= outline.byteCount
            guard budget >= 0 else { throw .corrupt("its log is a tangle of entries") }
            if VHDXLogEntry(try bytes(at: position, count: outline.byteCount)) != nil {
                result[position] = Entry(position: position, outline: outline)
                position += UInt64(outline.byteCount)
            } else {
                position += sector
            }
        }
        return result
    }

    /// The entries to apply, the oldest first: those that the newest one with an unbroken row back
    /// to its tail needs. None at all: the log was named but nothing came into it.
    private func sequence(of entries: [UInt64: Entry]) throws(ImageError) -> [Entry] {
        if entries.isEmpty { return [] }
        for head in entries.values.sorted(by: { $0.outline.sequence > $1.outline.sequence }) {
            var row: [Entry] = []
            var position = head.outline.tail
            while let entry = entries[position], row.count < entries.count,
                row.last.map({ $0.outline.sequence + 1 == entry.outline.sequence }) ?? true
            {
                row.append(entry)
                if entry.position == head.position { return row }
                position = (position + UInt64(entry.outline.byteCount)) % UInt64(range.count)
            }
        }
        throw .corrupt("no entry of its log is complete with those before it")
    }

    /// Bytes of the log, which goes on at its start where it ends.
    private func bytes(at position: UInt64, count: Int) throws(ImageError) -> [UInt8] {
        let first = min(count, range.count - Int(position))
        let found = try hosted { () throws(HostError) in
            let start = try file.bytes(at: range.lowerBound + position, count: first)
            let rest = try file.bytes(at: range.lowerBound, count: count - first)
            return start.flatMap { start in rest.map { start + $0 } }
        }
        guard let found else { throw .corrupt("the file ends inside its log") }
        return found
    }
}
