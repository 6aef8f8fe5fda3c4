import Synchronization

/// Where the guest's bytes lie in an image's files, as far as that is known without I/O. Any thread
/// may ask; the image publishes.
///
/// What is published as data stays true while the image is open: an image never gives a host range
/// that it has published to other guest bytes. A request in flight on a range therefore never hits
/// somebody else's data, whatever the slow thread does meanwhile.
package final class ExtentMap: Sendable {
    /// A stretch of guest bytes that is kept in one way.
    package enum Place: Equatable, Sendable {
        /// At `offset` of `DiskImage.files[file]`. `isWritable`: may be overwritten where it lies.
        case data(file: Int, offset: UInt64, isWritable: Bool)
        /// Reads as zeros; a write has to ask the image for room.
        case zeros
        /// Ask the image.
        case unknown
    }

    package struct Extent: Equatable, Sendable {
        package let place: Place
        /// In bytes, at least 1.
        package let count: UInt64

        package init(_ place: Place, count: UInt64) {
            self.place = place
            self.count = count
        }
    }

    private enum Layout: Sendable {
        case fixed([Extent])
        case granular
    }

    /// Entries of one slice: as many as a 4 KiB piece of a qcow2 table has.
    private static let sliceLength = 512
    /// 2048 slices of 4 KiB: 8 MiB, with clusters of 64 KiB the map of 64 GiB.
    private static let sliceLimit = 2048

    /// Granules that one answer joins at most: a bound on the time under the lock.
    private static let stretchLimit: UInt64 = 4096

    /// 512 consecutive granules: each entry is a file offset (a multiple of 512) and, in the bits
    /// below, the kind, the file and the right to write.
    private struct Slice {
        var number: UInt64
        var entries: [UInt64]
    }

    private let layout: Layout
    /// Whether a flush has more to do than to synchronise the files: the image keeps changed
    /// tables in memory.
    package var hasUnflushedMetadata: Bool { unflushed.load(ordering: .acquiring) }
    private let unflushed = Atomic<Bool>(false)
    private let granuleShift: Int
    private let slices: Mutex<[Slice?]>

    /// An image whose bytes lie in `extents`, one after the other, and never move.
    package init(fixed extents: [Extent]) {
        layout = .fixed(extents)
        granuleShift = 0
        slices = Mutex([])
    }

    /// An image that keeps units of `granule` bytes, a power of two of at least 512, and publishes
    /// them as it learns of them.
    package init(granule: UInt64) {
        precondition(granule >= 512 && granule.nonzeroBitCount == 1, "a granule is whole sectors")
        layout = .granular
        granuleShift = granule.trailingZeroBitCount
        slices = Mutex([])
    }

    /// What is known of the bytes from `offset` on: the longest stretch of one place, at most
    /// `limit` bytes, which is at least 1. Takes no I/O, no memory and at most one leaf lock.
    package func extent(at offset: UInt64, limit: UInt64) -> Extent {
        switch layout {
        case .fixed(let extents): Self.extent(in: extents, at: offset, limit: limit)
        case .granular: slices.withLock { known(in: $0, at: offset, limit: limit) }
        }
    }

    private static func extent(in extents: [Extent], at offset: UInt64, limit: UInt64) -> Extent {
        var rest = offset
        for extent in extents {
            guard rest >= extent.count else {
                let count = min(limit, extent.count - rest)
                guard case .data(let file, let start, let isWritable) = extent.place else {
                    return Extent(extent.place, count: count)
                }
                return Extent(
                    .data(file: file, offset: start + rest, isWritable: isWritable), count: count)
            }
            rest -= extent.count
        }
        return Extent(.unknown, count: limit)
    }

    /// The image's word on `hasUnflushedMetadata`; true before the write is answered that made it
    /// so. The image's thread only.
    package func setUnflushedMetadata(_ isUnflushed: Bool) {
        unflushed.store(isUnflushed, ordering: .releasing)
    }

    // MARK: granules

    /// Makes `place` known for the whole granules of the range; `offset` and `count` are multiples
    /// of the granule. The image's thread only.
    package func publish(_ place: Place, at offset: UInt64, count: UInt64) {
        guard case .granular = layout else { return }
        precondition(
            (offset | count) & (1 << granuleShift - 1) == 0, "only whole granules are published")
        var entry = Self.encode(place)
        let step: UInt64 = if case .data = place { 1 << granuleShift } else { 0 }
        slices.withLock { slices in
            for granule in (offset >> granuleShift)..<((offset + count) >> granuleShift) {
                Self.set(entry, granule, in: &slices)
                entry &+= step
            }
        }
    }

    private static func set(_ entry: UInt64, _ granule: UInt64, in slices: inout [Slice?]) {
        let number = granule / UInt64(sliceLength)
        if slices.isEmpty { slices = Array(repeating: nil, count: sliceLimit) }
        let slot = Int(number % UInt64(sliceLimit))
        if slices[slot]?.number != number {
            // Nothing to remember is no reason to forget what stands there.
            if entry == unknownEntry { return }
            if slices[slot] == nil {
                slices[slot] = Slice(
                    number: number, entries: Array(repeating: unknownEntry, count: sliceLength))
            } else {
                slices[slot]?.number = number
                for index in 0..<sliceLength { slices[slot]?.entries[index] = unknownEntry }
            }
        }
        slices[slot]?.entries[Int(granule % UInt64(sliceLength))] = entry
    }

    private func known(in slices: [Slice?], at offset: UInt64, limit: UInt64) -> Extent {
        let first = offset >> granuleShift
        let inside = offset & (1 << granuleShift - 1)
        let entry = Self.entry(first, in: slices)
        let step: UInt64 = entry & Self.kindMask == Self.dataKind ? 1 << granuleShift : 0
        var count = (1 << granuleShift) - inside
        var granule = first
        var next = entry
        while count < limit, granule - first < Self.stretchLimit {
            granule += 1
            next &+= step
            guard Self.entry(granule, in: slices) == next else { break }
            count += 1 << granuleShift
        }
        return Extent(Self.decode(entry, inside), count: min(count, limit))
    }

    private static func entry(_ granule: UInt64, in slices: [Slice?]) -> UInt64 {
        let number = granule / UInt64(sliceLength)
        guard !slices.isEmpty, let slice = slices[Int(number % UInt64(sliceLimit))],
            slice.number == number
        else { return unknownEntry }
        return slice.entries[Int(granule % UInt64(sliceLength))]
    }

    // MARK: entries

    private static let unknownEntry: UInt64 = 0
    private static let kindMask: UInt64 = 3
    private static let dataKind: UInt64 = 1
    private static let zerosEntry: UInt64 = 2
    private static let writableBit: UInt64 = 4
    private static let fileShift: UInt64 = 3
    /// The bits between the writable bit and the offset's lowest: 64 files.
    package static let fileLimit = 64

    private static func encode(_ place: Place) -> UInt64 {
        switch place {
        case .unknown: return unknownEntry
        case .zeros: return zerosEntry
        case .data(let file, let offset, let isWritable):
            precondition(offset % 512 == 0 && (0..<fileLimit).contains(file), "an entry's room")
            return offset | UInt64(file) << fileShift | (isWritable ? writableBit : 0) | dataKind
        }
    }

    private static func decode(_ entry: UInt64, _ inside: UInt64) -> Place {
        switch entry & kindMask {
        case dataKind:
            .data(
                file: Int(entry >> fileShift & UInt64(fileLimit - 1)),
                offset: (entry & ~511) + inside, isWritable: entry & writableBit != 0)
        case zerosEntry: .zeros
        default: .unknown
        }
    }
}
