/// Copies what a guest sees of one image into another, of any formats. What reads as zeros is left
/// out or becomes a hole.
package struct ImageCopy {
    /// Which of the two images failed.
    package enum Failure: Error {
        case source(ImageError)
        case target(ImageError)
    }

    private let source: any DiskImage
    private let target: any DiskImage
    /// The target is new, and reads as zeros.
    private let isBlank: Bool
    /// The target, where data goes into it compressed: whole clusters at a time.
    private let packing: QCOW2Image?
    /// Where stretches may begin and end: a power of two.
    private let unit: UInt64

    /// 2 MiB at a time: a block of most formats.
    private static let pieceByteCount = 2 << 20
    /// Zeros shorter than a page are not worth a hole.
    private static let holeByteCount = 4096

    package init(from source: any DiskImage, to target: any DiskImage, isBlank: Bool) {
        self.source = source
        self.target = target
        self.isBlank = isBlank
        packing = nil
        unit = 1
    }

    /// Compresses the data; `target` is new.
    package init(from source: any DiskImage, compressedInto target: QCOW2Image) {
        self.source = source
        self.target = target
        isBlank = true
        packing = target
        unit = target.geometry.clusterSize
    }

    /// Copies all; `report` gets the number of bytes that are done, now and then.
    package func run(_ report: (UInt64) -> Void) throws(Failure) {
        guard target.byteCount >= source.byteCount else {
            throw .target(.invalid("is smaller than what is copied into it"))
        }
        var buffer = [UInt8](repeating: 0, count: Self.pieceByteCount)
        var offset: UInt64 = 0
        while offset < source.byteCount {
            let (end, isZero) = try stretch(from: offset)
            if isZero {
                try zero(offset..<end)
                offset = end
            }
            while offset < end {
                let count = Int(min(end - offset, UInt64(Self.pieceByteCount)))
                do throws(ImageError) {
                    var span = buffer.mutableSpan
                    var piece = span._mutatingExtracting(..<count)
                    try source.read(into: &piece, at: offset)
                } catch {
                    throw .source(error)
                }
                try write(buffer.span.extracting(..<count), at: offset)
                offset += UInt64(count)
                report(offset)
            }
            report(offset)
        }
    }

    /// Where what begins at `offset` ends, in whole units, and whether all of it is zeros.
    private func stretch(from offset: UInt64) throws(Failure) -> (end: UInt64, isZero: Bool) {
        let found = try fromSource { () throws(ImageError) in try source.allocation(at: offset) }
        let end = min(source.byteCount, offset + found.count)
        let whole = end == source.byteCount ? end : end & ~(unit - 1)
        if found.kind == .zeros, whole > offset { return (whole, true) }
        return (min(source.byteCount, end.roundedUp(to: unit)), false)
    }

    /// Writes what of `bytes` is not all zeros.
    private func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(Failure) {
        if let packing {
            try pack(bytes, into: packing, at: offset)
        } else {
            try writePages(bytes, at: offset)
        }
    }

    private func pack(
        _ bytes: Span<UInt8>, into target: QCOW2Image, at offset: UInt64
    ) throws(Failure) {
        for start in stride(from: 0, to: bytes.count, by: Int(unit)) {
            let cluster = bytes.extracting(start..<min(start + Int(unit), bytes.count))
            let pages = stride(from: 0, to: cluster.count, by: Self.holeByteCount)
            if pages.allSatisfy({ Self.isZero(cluster, at: $0) }) { continue }
            try toTarget { () throws(ImageError) in
                try target.writeCompressed(cluster, at: offset + UInt64(start))
            }
        }
    }

    private func writePages(_ bytes: Span<UInt8>, at offset: UInt64) throws(Failure) {
        var start = 0
        while start < bytes.count {
            let isZero = Self.isZero(bytes, at: start)
            var end = start
            repeat {
                end = min(end + Self.holeByteCount, bytes.count)
            } while end < bytes.count
                && Self.isZero(bytes, at: end) == isZero
            if isZero {
                try zero(offset + UInt64(start)..<offset + UInt64(end))
            } else {
                let run = bytes.extracting(start..<end)
                try toTarget { () throws(ImageError) in
                    try target.write(run, at: offset + UInt64(start))
                }
            }
            start = end
        }
    }

    private func zero(_ range: Range<UInt64>) throws(Failure) {
        if isBlank { return }
        try toTarget { () throws(ImageError) in
            try target.writeZeros(
                at: range.lowerBound, count: range.upperBound - range.lowerBound, mayUnmap: true)
        }
    }

    private static func isZero(_ bytes: Span<UInt8>, at start: Int) -> Bool {
        for index in start..<min(start + holeByteCount, bytes.count) where bytes[index] != 0 {
            return false
        }
        return true
    }

    private func fromSource<Value>(
        _ body: () throws(ImageError) -> Value
    ) throws(Failure) -> Value {
        do throws(ImageError) { return try body() } catch { throw .source(error) }
    }

    private func toTarget(_ body: () throws(ImageError) -> Void) throws(Failure) {
        do throws(ImageError) { try body() } catch { throw .target(error) }
    }
}
