import VMMStorage

/// A few calls to an image, as an input wants them.
struct ImageOperations {
    private enum Kind: UInt8, CaseIterable {
        case read, write, writeZeros, unmap, discard, flush, resize, allocation, extent, check
    }

    private struct Operation {
        let kind: Kind
        let value: UInt16
        let shift: UInt8
        let count: UInt16

        init(_ input: inout FuzzInput) {
            kind = Kind.allCases[Int(input.next(UInt8.self)) % Kind.allCases.count]
            shift = input.next()
            value = input.next()
            count = input.next()
        }

        /// Bytes from the disk's start or, with the highest bit of `shift`, before its end.
        func offset(in byteCount: UInt64) -> UInt64 {
            let distance = UInt64(value) << UInt64(shift & 63)
            return shift & 128 == 0 ? distance : byteCount &- distance
        }
    }

    let isReadOnly: Bool
    /// Makes the checksums right, so that changes get past them.
    let seals: Bool
    private let repair: ImageRepair?
    private let operations: [Operation]

    /// So that a long input is a large image, not a long test.
    private static let limit = 16

    init(_ input: inout FuzzInput) {
        let flags = input.next(UInt8.self)
        isReadOnly = flags & 1 != 0
        seals = flags & 2 != 0
        repair = [nil, .nothing, .leaks, .everything][Int(flags >> 2 & 3)]
        let count = Int(input.next(UInt8.self)) % Self.limit
        operations = (0..<count).map { _ in Operation(&input) }
    }

    /// One of each operation, on the start and the end of a disk.
    static func seed(flags: UInt8) -> [UInt8] {
        let kinds = Kind.allCases.map(\.rawValue)
        return [flags, UInt8(kinds.count)]
            + kinds.flatMap { kind in
                [kind, kind % 2 == 0 ? 0 : 128] + FuzzInput.bytes(UInt16(600))
                    + FuzzInput.bytes(UInt16(512))
            }
    }

    /// What a writable image, a read-only one and one to be mended go through.
    static let seeds = [seed(flags: 2), seed(flags: 3), seed(flags: 14)]

    var options: ImageOptions {
        var options = ImageOptions()
        options.isReadOnly = isReadOnly
        options.isForRepair = repair != nil
        return options
    }

    func run(on open: () throws(ImageError) -> any DiskImage) {
        guard let image = try? open() else { return }
        for operation in operations { try? perform(operation, image) }
        if let repair { _ = try? image.check(repair) }
        try? image.close()
    }

    private func perform(_ operation: Operation, _ image: any DiskImage) throws(ImageError) {
        let offset = operation.offset(in: image.byteCount)
        let count = UInt64(operation.count)
        var bytes = [UInt8](repeating: 7, count: Int(operation.count))
        switch operation.kind {
        case .read:
            var span = bytes.mutableSpan
            try image.read(into: &span, at: offset)
        case .write: try image.write(bytes.span, at: offset)
        case .writeZeros: try image.writeZeros(at: offset, count: count, mayUnmap: false)
        case .unmap: try image.writeZeros(at: offset, count: count << 4, mayUnmap: true)
        case .discard: try image.discard(at: offset, count: count << 8)
        case .flush: try image.flush()
        case .resize: try image.resize(to: offset)
        case .allocation: _ = try image.allocation(at: offset)
        case .extent: _ = image.extents.extent(at: offset, limit: max(1, count))
        case .check: _ = try image.check(.nothing)
        }
    }
}
