import VMMHost

/// Which kind of VHD a file is.
package enum VHDImage {
    /// Opens what lies on `file`. The footer at the end rules; a dynamic image that lost it (it is
    /// overwritten whenever the file grows) still has its copy at the start.
    package static func open(_ file: any ImageFile) throws(ImageError) -> any DiskImage {
        let end = try hosted { () throws(HostError) in try file.byteCount() }
        let (footer, isLast) = try footer(of: file, end: end)
        let byteCount = footer.diskByteCount
        guard byteCount > 0, byteCount % 512 == 0, byteCount <= VHDFooter.sizeLimit else {
            throw .corrupt("the footer says that the disk has \(byteCount) bytes")
        }
        switch footer.type {
        case .fixed:
            return try FixedVHDImage(file, byteCount: byteCount, end: end)
        case .dynamic:
            let blocksEnd = isLast ? end - UInt64(VHDFooter.byteCount) : end
            return try DynamicVHDImage(file, footer, blocksEnd: blocksEnd)
        case .differencing:
            throw .unsupported("a parent image (a differencing VHD)")
        }
    }

    private static func footer(
        of file: any ImageFile, end: UInt64
    ) throws(ImageError) -> (VHDFooter, isLast: Bool) {
        let count = VHDFooter.byteCount
        guard end >= UInt64(count) else { throw .corrupt("it ends before its footer") }
        let (last, first) = try hosted { () throws(HostError) in
            (
                try file.bytes(at: end - UInt64(count), count: count) ?? [],
                try file.bytes(at: 0, count: count) ?? []
            )
        }
        if let footer = VHDFooter(last) { return (footer, true) }
        if let footer = VHDFooter(first), footer.type != .fixed { return (footer, false) }
        throw .corrupt("its footer's checksum or disk type is wrong")
    }

    /// Makes a fixed VHD of `file`, whose contents are lost.
    package static func createFixed(
        on file: any ImageFile, byteCount: UInt64
    ) throws(ImageError) {
        try requireSize(byteCount)
        let footer = VHDFooter(.fixed, diskByteCount: byteCount)
        try hosted { () throws(HostError) in
            try file.resize(to: 0)
            try file.write(footer.bytes, at: byteCount)
            try file.synchronize()
        }
    }

    /// Makes a dynamic VHD of `file`, whose contents are lost.
    package static func createDynamic(
        on file: any ImageFile, byteCount: UInt64, blockByteCount: UInt64 = 2 << 20
    ) throws(ImageError) {
        try requireSize(byteCount)
        let header = try VHDDynamicHeader(
            diskByteCount: byteCount, blockByteCount: blockByteCount)
        let footer = VHDFooter(.dynamic, diskByteCount: byteCount)
        try hosted { () throws(HostError) in
            try file.resize(to: 0)
            try file.write(footer.bytes, at: 0)
            try file.write(header.bytes, at: UInt64(VHDFooter.byteCount))
            try header.writeEmptyTable(on: file)
            try file.write(footer.bytes, at: header.tableEnd)
            try file.synchronize()
        }
    }

    private static func requireSize(_ byteCount: UInt64) throws(ImageError) {
        guard byteCount > 0, byteCount % 512 == 0, byteCount <= VHDFooter.sizeLimit else {
            throw .invalid("a VHD holds whole sectors of 512 bytes, at most 2040 GiB")
        }
    }
}
