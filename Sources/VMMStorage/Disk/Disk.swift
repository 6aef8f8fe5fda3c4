import Synchronization
import VMMBase
import VMMHost

/// How a disk is opened.
package struct DiskOptions: Sendable {
    package var image = ImageOptions()
    /// The engine to use; nil: the best that the kernel allows.
    package var engine: DiskEngineKind?
    /// Whether Linux AIO may stand in for io_uring where the kernel refuses it.
    package var allowsAIO = true
    /// Ranges may be given back to the host; else the image takes all its room at once.
    package var isSparse = true
    package var limiter: RateLimiter?

    package init() {}
}

/// An opened image with all that its queues share. Any thread.
package final class Disk: Sendable {
    package static let sectorSize: UInt64 = 512

    package let format: ImageFormat
    package let isReadOnly: Bool
    package let isSparse: Bool
    /// In bytes.
    package let logicalBlockSize: UInt32
    package let physicalBlockSize: UInt32
    /// What the disk answers when the user gave it no serial: the image's identity on this host,
    /// as CH derives it (device, represented device and inode numbers, 20 bytes at most).
    package let defaultSerial: String
    /// An image whose first sector is its file's, and that nobody declared as such: a guest that
    /// wrote another format's header there would have the host read it as that the next time.
    package let protectsFirstSector: Bool
    package let extents: ExtentMap
    package let limiter: RateLimiter?

    /// The image's files: its own, and those that it falls back on or consists of.
    package let files: [(path: String, isReadOnly: Bool)]
    /// The files that engines may use; nil where every byte has to go through the image.
    let descriptors: [FileDescriptor?]
    /// The one file that a flush has to synchronise; nil where there are several or none, and the
    /// image has to do it.
    let flushFile: Int?
    /// What direct I/O on the files must be aligned to, in bytes.
    let alignment: Int
    let lane: SlowLane
    /// The host's files that a guest's writes go to.
    private let written: [HostFile]
    private let engine: DiskEngineKind?
    private let allowsAIO: Bool
    private let sectors: Atomic<UInt64>
    /// Of all queues that there were; those of queues that are gone count on for the next ones.
    private struct Counters {
        var all: [DiskCounters] = []
        var free: [DiskCounters] = []
    }
    private let counters = Mutex(Counters())
    /// The host failed to make writes stable, and tells that once: what was lost stays lost, so
    /// that no later flush may be answered with success.
    private let lostWrites = Atomic<Bool>(false)

    /// Opens and locks the image at `path`.
    package convenience init(path: String, _ options: DiskOptions) throws(ImageError) {
        let file = try HostFile(
            path: path, isReadOnly: options.image.isReadOnly, isDirect: options.image.isDirect,
            lock: options.image.lock)
        if !options.isSparse, !file.isReadOnly {
            try hosted { () throws(HostError) in try file.preallocate() }
        }
        try self.init(ImageOpener.open(file, options.image), options)
    }

    /// Takes an image over; its first file is a `HostFile`, from which block sizes and identity
    /// come.
    package init(_ image: any DiskImage, _ options: DiskOptions) throws(ImageError) {
        format = image.format
        isReadOnly = image.isReadOnly
        isSparse = options.isSparse
        let file = image.files.first as? HostFile
        let raw = format == .raw ? file : nil
        logicalBlockSize = raw?.logicalBlockSize ?? image.logicalBlockSize
        physicalBlockSize = raw?.physicalBlockSize ?? image.logicalBlockSize
        defaultSerial =
            file.map { file in
                let data = file.metadata
                return String("\(data.device)\(data.rawDevice)\(data.inode)".prefix(20))
            } ?? "swiftlet"
        protectsFirstSector =
            options.image.format == nil && (format == .raw || image is FixedVHDImage)
        extents = image.extents
        limiter = options.limiter
        files = image.files.map { ($0.path, $0.isReadOnly) }
        descriptors = image.files.map(\.descriptor)
        let writable = image.files.indices.filter { !image.files[$0].isReadOnly }
        flushFile = writable.count == 1 ? writable[0] : nil
        written = writable.compactMap { image.files[$0] as? HostFile }
        alignment = image.files.map(\.alignment).max() ?? 1
        engine = options.engine
        allowsAIO = options.allowsAIO
        sectors = Atomic(image.byteCount / Self.sectorSize)
        lane = SlowLane(image)
    }

    /// The capacity in sectors of 512 bytes.
    package var sectorCount: UInt64 { sectors.load(ordering: .acquiring) }

    /// Grows or shrinks the disk, on the slow lane; `done` is called there.
    package func resize(
        to byteCount: UInt64, done: @escaping @Sendable (ImageError?) -> Void
    ) {
        lane.post { [self] image, _ in
            do throws(ImageError) {
                try image.resize(to: byteCount)
                sectors.store(image.byteCount / Self.sectorSize, ordering: .releasing)
                done(nil)
            } catch {
                noteLostWrites(of: image)
                done(error)
            }
        }
    }

    /// The sum over all queues that there were.
    package var statistics: DiskStatistics {
        counters.withLock { $0.all.reduce(DiskStatistics()) { $0 + $1.statistics } }
    }

    /// Writes down what the image keeps in memory and ends the slow lane; nil, or why it failed.
    /// Called once, when no queue uses the disk any more.
    package func close() -> ImageError? { lane.close() }

    /// How many sets of counters there are: as many as there were queues at once.
    package var counterCount: Int { counters.withLock { $0.all.count } }

    /// Counters for one queue, to be given back when it ends.
    func takeCounters() -> DiskCounters {
        counters.withLock { counters in
            if let free = counters.free.popLast() { return free }
            let made = DiskCounters()
            counters.all.append(made)
            return made
        }
    }

    func giveBack(_ used: DiskCounters) { counters.withLock { $0.free.append(used) } }

    var hasLostWrites: Bool { lostWrites.load(ordering: .acquiring) }

    /// An engine was told. The image must not take what it flushes later, its tables, for stable.
    func setLostWrites() {
        for file in written { file.setLostWrites() }
        lostWrites.store(true, ordering: .releasing)
    }

    /// What an image makes stable of its own accord, behind tables for example, may fail there.
    func noteLostWrites(of image: any DiskImage) {
        guard image.files.contains(where: \.hasLostWrites) else { return }
        lostWrites.store(true, ordering: .releasing)
    }

    /// Said once: drivers have engines made as often as they like.
    private static let lackOfRings: Void = Log.info("disk: the kernel allows no io_uring")

    /// The engine asked for, else the first one that the kernel allows; nil where the slow lane
    /// does all.
    func makeEngine(depth: UInt32) throws(HostError) -> (any DiskEngine)? {
        let files = descriptors.compactMap { $0 }
        guard files.count == descriptors.count else { return nil }
        switch engine {
        case .ring: return try RingEngine(files, depth: depth)
        case .aio: return try AIOEngine(files, depth: depth)
        case .synchronous: return nil
        case nil:
            if let ring = try? RingEngine(files, depth: depth) { return ring }
            _ = Self.lackOfRings
            return allowsAIO ? try? AIOEngine(files, depth: depth) : nil
        }
    }
}
