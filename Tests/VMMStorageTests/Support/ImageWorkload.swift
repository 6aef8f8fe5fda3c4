import VMMBase
import VMMStorage

/// Random requests to an image, with what its disk has to read as beside it.
struct ImageWorkload {
    var generator: SeededGenerator
    /// The disk as it must read.
    private(set) var model: [UInt8]
    /// As it was at the last flush, and what a cut may leave otherwise since.
    private(set) var flushed: [UInt8]
    private(set) var touched: [Range<Int>] = []

    /// What is written: no byte a zero, and no two sectors of it alike.
    private static let pattern: [UInt8] = {
        var generator = SeededGenerator(seed: 0)
        return (0..<(1 << 20) / 8).flatMap { _ in
            withUnsafeBytes(of: generator.next() | 0x0101_0101_0101_0101, Array.init)
        }
    }()

    init(seed: UInt64, model: [UInt8]) {
        generator = SeededGenerator(seed: seed)
        self.model = model
        flushed = model
    }

    /// `count` requests of any size and alignment; the longest is `longest` bytes.
    mutating func run(_ count: Int, longest: Int = 100_000, on image: any DiskImage) throws {
        for _ in 0..<count { try step(longest, image) }
    }

    private mutating func step(_ longest: Int, _ image: any DiskImage) throws {
        let start = Int.random(in: 0..<model.count, using: &generator)
        let wanted = Int.random(in: 1...longest, using: &generator)
        let range = start..<min(model.count, start + wanted)
        let zeros = [UInt8](repeating: 0, count: range.count)
        switch Int.random(in: 0..<10, using: &generator) {
        case 0..<5:
            let from = Int.random(in: 0..<4096, using: &generator)
            let bytes = Array(Self.pattern[from..<from + range.count])
            touch(range)
            try image.write(bytes.span, at: UInt64(start))
            model.replaceSubrange(range, with: bytes)
        case 5, 6:
            touch(range)
            try image.writeZeros(
                at: UInt64(start), count: UInt64(range.count), mayUnmap: start.isMultiple(of: 2))
            model.replaceSubrange(range, with: zeros)
        case 7:
            touch(range)
            try image.discard(at: UInt64(start), count: UInt64(range.count))
            model.replaceSubrange(range, with: try bytes(of: image, range))
        case 8:
            try image.flush()
            flushed = model
            touched = []
        default:
            guard try bytes(of: image, range) == Array(model[range]) else {
                throw Mismatch(range: range)
            }
        }
    }

    private mutating func touch(_ range: Range<Int>) { touched.append(range) }

    struct Mismatch: Error {
        let range: Range<Int>
    }

    /// Whether the disk after a cut is as it was flushed, but for what was touched since.
    func isKept(_ disk: [UInt8]) -> Bool {
        var expected = flushed
        for range in touched { expected.replaceSubrange(range, with: disk[range]) }
        return expected == disk
    }
}

func bytes(of image: any DiskImage, _ range: Range<Int>) throws -> [UInt8] {
    var result = [UInt8](repeating: 0xee, count: range.count)
    var span = result.mutableSpan
    try image.read(into: &span, at: UInt64(range.lowerBound))
    return result
}

/// All that the guest sees.
func contents(of image: any DiskImage) throws -> [UInt8] {
    try bytes(of: image, 0..<Int(image.byteCount))
}
