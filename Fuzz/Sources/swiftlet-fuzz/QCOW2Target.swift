import VMMStorage

/// The input is some operations and a qcow2 image.
enum QCOW2Target: FuzzTarget {
    static let name = "qcow2"

    static let words: [[UInt8]] = [
        [0x51, 0x46, 0x49, 0xfb],
        // Header extensions: the backing file's format, feature names, bitmaps, the data file.
        [0xe2, 0x79, 0x2a, 0xca], [0x68, 0x03, 0xf8, 0x57], [0x23, 0x85, 0x28, 0x75],
        [0x44, 0x41, 0x54, 0x41],
        // L1 and L2 entries: copied, compressed, zero.
        [0x80, 0, 0, 0, 0, 0, 2, 0], [0x40, 0, 0, 0, 0, 0, 2, 0], [0, 0, 0, 0, 0, 0, 0, 1],
    ]

    static func seeds() throws -> [[UInt8]] {
        var images: [[UInt8]] = []
        for compression in [QCOW2Compression.zlib, .zstd] {
            var options = QCOW2CreateOptions(byteCount: 64 << 10)
            options.clusterSize = 512
            options.compression = compression
            options.lazyRefcounts = compression == .zstd
            images.append(try image(options, isPacked: true))
        }
        for bits in [1, 8, 64] {
            var options = QCOW2CreateOptions(byteCount: 1 << 20)
            options.clusterSize = 4096
            options.refcountBits = bits
            options.preallocation = bits == 8 ? .metadata : .none
            images.append(try image(options))
        }
        var options = QCOW2CreateOptions(byteCount: 1 << 30)
        options.version = 2
        images.append(try image(options))
        return images.flatMap { image in ImageOperations.seeds.map { $0 + image } }
    }

    private static func image(
        _ options: QCOW2CreateOptions, isPacked: Bool = false
    ) throws -> [UInt8] {
        let file = FuzzFile()
        try QCOW2Image.create(on: file, options)
        let image = try QCOW2Image(file, ImageOptions())
        let bytes = [UInt8](repeating: 5, count: Int(min(options.clusterSize, 1024)))
        try image.write(bytes.span, at: 0)
        try image.writeZeros(at: options.clusterSize, count: options.clusterSize, mayUnmap: false)
        if isPacked { try image.writeCompressed(bytes.span, at: 4 * options.clusterSize) }
        try image.write(bytes.span, at: options.byteCount - 1024)
        try image.close()
        return file.packed
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let operations = ImageOperations(&input)
        let file = FuzzFile(&input, isReadOnly: operations.isReadOnly)
        operations.run { () throws(ImageError) in try QCOW2Image(file, operations.options) }
    }
}
