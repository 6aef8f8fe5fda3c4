import VMMHost

/// A file or block device whose bytes are the guest's.
package final class RawImage: DiskImage {
    package let format = ImageFormat.raw
    package let isReadOnly: Bool
    package let files: [any ImageFile]
    package let extents: ExtentMap
    package private(set) var byteCount: UInt64
    private let file: any ImageFile

    /// Whole sectors only; a remainder at the file's end is out of reach.
    package init(_ file: any ImageFile) throws(ImageError) {
        self.file = file
        files = [file]
        isReadOnly = file.isReadOnly
        byteCount = try hosted { () throws(HostError) in try file.byteCount() } & ~511
        guard byteCount > 0 else { throw .invalid("holds less than one sector of 512 bytes") }
        // The map reaches as far as any resize can: who asks stays inside `byteCount`.
        extents = ExtentMap(fixed: [
            .init(
                .data(file: 0, offset: 0, isWritable: !isReadOnly), count: UInt64(Int64.max) & ~511)
        ])
    }

    package func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(ImageError) {
        try requireInside(offset, UInt64(bytes.count))
        let count: Int
        do throws(HostError) {
            count = try file.read(into: &bytes, at: offset)
        } catch {
            throw .host(error)
        }
        // The file was cut under us: what was there is gone, which is not the same as zeros.
        guard count == bytes.count else { throw .host(HostError("read", code: HostError.ioCode)) }
    }

    package func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(ImageError) {
        try requireInside(offset, UInt64(bytes.count))
        try hosted { () throws(HostError) in try file.write(bytes, at: offset) }
    }

    package func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(ImageError) {
        try requireInside(offset, count)
        try hosted { () throws(HostError) in
            try file.writeZeros(at: offset, count: count, mayUnmap: mayUnmap)
        }
    }

    package func discard(at offset: UInt64, count: UInt64) throws(ImageError) {
        try requireInside(offset, count)
        try hosted { () throws(HostError) in try file.discard(at: offset, count: count) }
    }

    package func flush() throws(ImageError) {
        try hosted { () throws(HostError) in try file.synchronize() }
    }

    package func resize(to byteCount: UInt64) throws(ImageError) {
        guard byteCount > 0, byteCount % 512 == 0 else {
            throw .invalid("a disk is whole sectors of 512 bytes, at least one")
        }
        try hosted { () throws(HostError) in try file.resize(to: byteCount) }
        self.byteCount = byteCount
    }

    package func allocation(at offset: UInt64) throws(ImageError) -> ImageAllocation {
        try requireInside(offset, 1)
        let data = try hosted { () throws(HostError) in try file.allocatedRange(from: offset) }
        guard let data, data.lowerBound < byteCount else {
            return ImageAllocation(.zeros, count: byteCount - offset)
        }
        return data.lowerBound > offset
            ? ImageAllocation(.zeros, count: data.lowerBound - offset)
            : ImageAllocation(.data, count: min(data.upperBound, byteCount) - offset)
    }

    package func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck {
        throw .invalid("a raw image has no structure to check")
    }

    package func close() throws(ImageError) { if !isReadOnly { try flush() } }
}
