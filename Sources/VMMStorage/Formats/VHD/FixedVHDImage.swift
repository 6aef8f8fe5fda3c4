import VMMHost

/// A VHD whose file is the guest's bytes with a footer behind them.
package final class FixedVHDImage: MappedImage {
    package let format = ImageFormat.vhd
    package let byteCount: UInt64
    package let isReadOnly: Bool
    package let files: [any ImageFile]
    package let extents: ExtentMap
    private let file: any ImageFile

    init(_ file: any ImageFile, byteCount: UInt64, end: UInt64) throws(ImageError) {
        guard byteCount <= end - UInt64(VHDFooter.byteCount) else {
            throw .corrupt("it is shorter than the disk of \(byteCount) bytes in its footer")
        }
        self.file = file
        self.byteCount = byteCount
        files = [file]
        isReadOnly = file.isReadOnly
        extents = ExtentMap(fixed: [
            .init(.data(file: 0, offset: 0, isWritable: !isReadOnly), count: byteCount)
        ])
    }

    package func locate(at offset: UInt64, limit: UInt64) throws(ImageError) -> ExtentMap.Extent {
        extents.extent(at: offset, limit: limit)
    }

    /// All bytes have their room.
    package func makeRoom(at offset: UInt64) throws(ImageError) {}

    package func flush() throws(ImageError) {
        try hosted { () throws(HostError) in try file.synchronize() }
    }

    package func resize(to byteCount: UInt64) throws(ImageError) {
        throw .invalid("a VHD cannot be resized; convert it")
    }

    /// Its footer, the only structure there is, was checked when it was opened.
    package func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck {
        var result = ImageCheck()
        result.endOffset = byteCount + UInt64(VHDFooter.byteCount)
        return result
    }

    package func close() throws(ImageError) { if !isReadOnly { try flush() } }
}
