import VMMBase
import VMMStorage

/// Changes bytes of a sound image at random and uses what comes of it. Whatever the outcome, it is
/// an error or bytes: a trap ends the test process, a hang its time, and memory is bounded by
/// `MemoryFile.byteLimit`.
struct ImageAttack {
    /// A sound image.
    let image: [UInt8]
    /// Where its structures lie.
    let structures: [Range<Int>]
    /// Makes checksums right again, so that the changes get past them.
    let seal: (inout [UInt8]) -> Void
    let open: (MemoryFile) throws(ImageError) -> any DiskImage

    /// Returns how many of `count` changed images could still be opened.
    func run(_ count: Int, seed: UInt64) -> Int {
        var generator = SeededGenerator(seed: seed)
        var opened = 0
        for _ in 0..<count {
            var bytes = image
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                change(&bytes, &generator)
            }
            if Bool.random(using: &generator) || Bool.random(using: &generator) { seal(&bytes) }
            if attempt({ () throws(ImageError) in try use(bytes, &generator) }) { opened += 1 }
        }
        return opened
    }

    /// A field of one to eight bytes gets a value that somebody may have forgotten.
    private func change(_ bytes: inout [UInt8], _ generator: inout SeededGenerator) {
        guard let range = structures.randomElement(using: &generator) else { return }
        let width = [1, 2, 4, 8].randomElement(using: &generator) ?? 1
        let offset =
            range.lowerBound + Int.random(in: 0..<range.count / width, using: &generator)
            * width
        let values: [UInt64] = [
            0, 1, .max, 1 << 63, 1 << 31, 0x7fff_ffff, UInt64(bytes.count),
            UInt64(bytes.count) / 512, generator.next(), generator.next() & 0xffff,
        ]
        let value = values.randomElement(using: &generator) ?? 0
        let isBigEndian = Bool.random(using: &generator)
        for index in 0..<width {
            let shift = UInt64(isBigEndian ? width - 1 - index : index) * 8
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> shift)
        }
    }

    private func use(
        _ bytes: [UInt8], _ generator: inout SeededGenerator
    ) throws(ImageError) {
        let file = MemoryFile(bytes)
        file.isReadOnly = Int.random(in: 0..<8, using: &generator) == 0
        file.byteLimit = UInt64(self.image.count) + 4 << 20
        let image = try open(file)
        let end = image.byteCount
        var buffer = [UInt8](repeating: 3, count: 3000)
        for offset in [
            0, end / 2, end - min(end, 3000), UInt64.random(in: 0..<end, using: &generator),
        ] {
            let count = Int(min(3000, end - offset))
            _ = attempt { () throws(ImageError) in
                var span = buffer.mutableSpan
                var part = span._mutatingExtracting(..<count)
                try image.read(into: &part, at: offset)
            }
            _ = attempt { () throws(ImageError) in _ = try image.allocation(at: offset) }
            _ = attempt { () throws(ImageError) in
                try image.write(buffer.span.extracting(..<count), at: offset)
            }
            _ = attempt { () throws(ImageError) in
                try image.writeZeros(at: offset, count: UInt64(count), mayUnmap: true)
            }
            _ = attempt { () throws(ImageError) in
                try image.discard(at: offset, count: UInt64(count))
            }
        }
        _ = attempt { () throws(ImageError) in try image.flush() }
        _ = attempt { () throws(ImageError) in _ = try image.check(.nothing) }
        _ = attempt { () throws(ImageError) in try image.close() }
    }

    private func attempt(_ body: () throws(ImageError) -> Void) -> Bool {
        do {
            try body()
            return true
        } catch {
            return false
        }
    }
}
