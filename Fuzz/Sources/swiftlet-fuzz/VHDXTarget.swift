@testable import VMMStorage

/// The input is some operations and a VHDX, closed or with a log to be applied.
enum VHDXTarget: FuzzTarget {
    static let name = "vhdx"

    static let words = ["vhdxfile", "head", "regi", "metadata", "loge", "desc", "zero", "data"]
        .map { Array($0.utf8) }

    static func seeds() throws -> [[UInt8]] {
        var images: [[UInt8]] = []
        for isClosed in [true, false] {
            let file = FuzzFile()
            try VHDXImage.create(on: file, byteCount: 8 << 20, blockByteCount: 1 << 20)
            let image = try VHDXImage(file)
            let bytes = [UInt8](repeating: 5, count: 1024)
            for offset: UInt64 in [0, 5 << 20] {
                try image.write(bytes.span, at: offset)
                try image.flush()
            }
            if isClosed { try image.close() }
            images.append(file.packed)
        }
        return images.flatMap { image in ImageOperations.seeds.map { $0 + image } }
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let operations = ImageOperations(&input)
        let file = FuzzFile(&input, isReadOnly: operations.isReadOnly)
        if operations.seals { seal(file) }
        operations.run { () throws(ImageError) in try VHDXImage(file) }
    }

    /// Headers, region tables, and the first entries of a log where our images have it.
    private static func seal(_ file: FuzzFile) {
        for (offset, count) in [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 64 << 10)] {
            file.change(at: UInt64(offset), count: count) { CRC32C.seal(&$0, at: 4) }
        }
        var offset: UInt64 = 1 << 20
        for _ in 0..<4 {
            var count = 0
            file.change(at: offset, count: 64) { header in
                guard header.holds("loge", at: 0) else { return }
                count = Int(header.littleEndian(UInt32.self, at: 8))
            }
            guard (64...1 << 16).contains(count) else { return }
            file.change(at: offset, count: count) { CRC32C.seal(&$0, at: 4) }
            offset += UInt64(count)
        }
    }
}
