import VMMHost

extension VHDXImage {
    /// Makes a VHDX of `file`, whose contents are lost. `isFixed`: all blocks have their place from
    /// the start. `logicalBlockSize`: the disk's sectors, 512 or 4096 bytes.
    package static func create(
        on file: any ImageFile, byteCount: UInt64, blockByteCount: UInt64 = 32 << 20,
        isFixed: Bool = false, logicalBlockSize: UInt64 = 512
    ) throws(ImageError) {
        guard VHDXLayout.blockLimits.contains(blockByteCount),
            blockByteCount.nonzeroBitCount == 1
        else { throw .invalid("a VHDX's blocks are a power of two from 1 MiB to 256 MiB") }
        guard VHDXLayout.sectorSizes.contains(logicalBlockSize) else {
            throw .invalid("a VHDX's sectors have 512 or 4096 bytes")
        }
        guard byteCount > 0, byteCount % logicalBlockSize == 0, byteCount <= VHDXLayout.diskLimit
        else {
            throw .invalid(
                "a VHDX holds whole sectors of \(logicalBlockSize) bytes, at most 64 TiB")
        }
        let layout = try VHDXLayout(
            diskByteCount: byteCount, blockByteCount: blockByteCount,
            logicalSectorByteCount: logicalBlockSize)
        let unit = VHDXLayout.alignment
        // After the headers: the log, the metadata and the table, each in its own mebibytes.
        let metadata = 2 * unit..<3 * unit
        let table = 3 * unit..<(3 * unit + layout.tableByteCount).roundedUp(to: unit)
        let end = table.upperBound + (isFixed ? layout.blockCount * blockByteCount : 0)
        try hosted { () throws(HostError) in
            try file.resize(to: 0)
            try file.resize(to: end)
            try file.write(identifier, at: 0)
            try file.write(layout.metadataBytes(isFixed: isFixed), at: metadata.lowerBound)
        }
        try VHDXRegions(table: table, metadata: metadata).write(on: file)
        if isFixed { try writeTable(of: layout, at: table.lowerBound, table.upperBound, on: file) }
        var header = VHDXHeader(logOffset: unit, logByteCount: UInt32(unit))
        for _ in 0..<2 { try header.write(on: file) }
    }

    /// "vhdxfile" and who made it, in UTF-16.
    private static var identifier: [UInt8] {
        Array("vhdxfile".utf8) + "Swiftlet".utf16.flatMap { [UInt8($0 & 0xff), UInt8($0 >> 8)] }
    }

    /// The table of a disk whose blocks lie one after the other from `first` on, a mebibyte of it
    /// at a time.
    private static func writeTable(
        of layout: VHDXLayout, at offset: UInt64, _ first: UInt64, on file: any ImageFile
    ) throws(ImageError) {
        let present: UInt64 = 6
        let piece = VHDXLayout.alignment
        var bytes = [UInt8](repeating: 0, count: Int(piece))
        var start: UInt64 = 0
        for block in 0..<layout.blockCount {
            let position = layout.entryPosition(block)
            if position >= start + piece {
                try hosted { () throws(HostError) in try file.write(bytes, at: offset + start) }
                start += piece
                bytes = [UInt8](repeating: 0, count: Int(piece))
            }
            bytes.storeLittleEndian(
                first + block * layout.blockByteCount | present, at: Int(position - start))
        }
        let rest = bytes.span.extracting(..<Int(layout.tableByteCount - start))
        try hosted { () throws(HostError) in try file.write(rest, at: offset + start) }
    }
}
