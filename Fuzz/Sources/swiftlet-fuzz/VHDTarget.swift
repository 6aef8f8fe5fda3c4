@testable import VMMStorage

/// The input is some operations and a VHD, fixed or dynamic.
enum VHDTarget: FuzzTarget {
    static let name = "vhd"

    static let words = ["conectix", "cxsparse", "swft", "\u{0}\u{0}\u{0}\u{3}"].map {
        Array($0.utf8)
    }

    static func seeds() throws -> [[UInt8]] {
        let fixed = FuzzFile()
        try VHDImage.createFixed(on: fixed, byteCount: 16 << 10)
        var images = [fixed.packed]
        for block: UInt64 in [4096, 2 << 20] {
            let file = FuzzFile()
            try VHDImage.createDynamic(on: file, byteCount: 8 << 20, blockByteCount: block)
            let image = try VHDImage.open(file)
            let bytes = [UInt8](repeating: 5, count: 1024)
            try image.write(bytes.span, at: 0)
            try image.write(bytes.span, at: 4 << 20)
            try image.close()
            images.append(file.packed)
        }
        return images.flatMap { image in ImageOperations.seeds.map { $0 + image } }
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let operations = ImageOperations(&input)
        let file = FuzzFile(&input, isReadOnly: operations.isReadOnly)
        if operations.seals { seal(file) }
        operations.run { () throws(ImageError) in try VHDImage.open(file) }
    }

    private static func seal(_ file: FuzzFile) {
        let end = (try? file.byteCount()) ?? 0
        for (offset, count, field) in [(0, 512, 64), (end &- 512, 512, 64), (512, 1024, 36)] {
            file.change(at: offset, count: count) { bytes in
                bytes.storeBigEndian(VHDFooter.checksum(bytes, at: field), at: field)
            }
        }
    }
}
