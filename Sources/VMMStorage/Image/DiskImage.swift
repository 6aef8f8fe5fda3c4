import VMMHost

/// A disk image of one format, opened: a range of bytes that a guest sees, and where they lie.
///
/// Two ways lead to the bytes. The calls below do everything, block, and belong to one thread at a
/// time: the tool's, or the slow thread of a disk. The hot path does not come here: an I/O loop
/// asks `extents` where the bytes lie and lets its engine move them to and from `files`; what
/// `extents` does not know is handed to the slow thread, whose call publishes it.
///
/// Ranges are bytes as the guest counts them, in any size and alignment, and lie inside
/// `byteCount`; anything else is `ImageError.outOfRange`.
package protocol DiskImage: AnyObject {
    var format: ImageFormat { get }
    /// The guest's view of the size, in bytes: a multiple of 512.
    var byteCount: UInt64 { get }
    /// The sectors that the image says its disk has, in bytes: 512 or 4096.
    var logicalBlockSize: UInt32 { get }
    var isReadOnly: Bool { get }
    /// What an engine may read and write by itself; `ExtentMap` names them by their place here.
    /// Backing files, read-only, come after the image's own files. Fixed once opened.
    var files: [any ImageFile] { get }
    var extents: ExtentMap { get }

    func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(ImageError)
    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(ImageError)
    /// The range reads as zeros afterwards. `mayUnmap`: the image may give its room back.
    func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(ImageError)
    /// A hint that the guest needs the range no more; reads as before or as zeros afterwards.
    func discard(at offset: UInt64, count: UInt64) throws(ImageError)
    /// All that was written before, through this object or through `files`, survives a power cut.
    func flush() throws(ImageError)
    /// Sets the guest's view of the size; bytes gained read as zeros.
    func resize(to byteCount: UInt64) throws(ImageError)
    /// What a user may want to know besides.
    var summary: ImageSummary { get }
    /// How the bytes from `offset` on are kept, up to the first change; at least one byte long.
    func allocation(at offset: UInt64) throws(ImageError) -> ImageAllocation
    /// Looks at the whole image for contradictions and, if asked, mends what it can.
    func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck
    /// Brings the image into the state in which others expect it. Call it last, once.
    func close() throws(ImageError)
}

extension DiskImage {
    package var logicalBlockSize: UInt32 { 512 }
}

/// The formats that Swiftlet reads, as `image_type` spells them.
package enum ImageFormat: String, CaseIterable, Sendable {
    case raw, qcow2, vhd, vhdx, vmdk
}

/// What an image says of itself, for a user to read.
package struct ImageSummary: Sendable {
    /// How much of the disk gets room at once (cluster, block); nil: bytes have theirs.
    package var unitByteCount: UInt64?
    /// The image to fall back on, as this one names it, and its format if it says that.
    package var backing: (name: String, format: String?)?
    /// Was not closed: `check` may have something to mend.
    package var isDirty = false
    package var qcow2: QCOW2Summary?

    package init() {}
}

/// How a stretch of an image is kept.
package struct ImageAllocation: Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// Bytes of the image itself.
        case data
        /// Known to read as zeros.
        case zeros
        /// Not in this image; of `depth` images down the chain, 1 being the next.
        case backing(depth: Int)
    }

    package let kind: Kind
    /// In bytes.
    package let count: UInt64

    package init(_ kind: Kind, count: UInt64) {
        self.kind = kind
        self.count = count
    }
}

/// What `check` may change.
package enum ImageRepair: Sendable {
    case nothing, leaks, everything
}

/// What `check` found. Counts are what is left after the repair that was asked for.
package struct ImageCheck: Equatable, Sendable {
    /// Contradictions that lose or mix up data.
    package var corruptions = 0
    /// Room that nothing refers to: harmless, but lost.
    package var leaks = 0
    package var repairedCorruptions = 0
    package var repairedLeaks = 0
    /// A sentence for each of the first findings, at most `findingLimit`.
    package private(set) var findings: [String] = []
    /// In the format's unit of allocation (cluster, block).
    package var allocatedUnits: UInt64 = 0
    package var totalUnits: UInt64 = 0
    /// One past the last byte of the file that is in use.
    package var endOffset: UInt64 = 0

    /// A broken image must not make the report grow with it.
    package static let findingLimit = 100

    package init() {}

    package mutating func add(_ finding: @autoclosure () -> String) {
        if findings.count < Self.findingLimit { findings.append(finding()) }
    }
}

extension DiskImage {
    /// Whether a flush has more to do than to synchronise `files`.
    package var hasUnflushedMetadata: Bool { extents.hasUnflushedMetadata }

    package var summary: ImageSummary { ImageSummary() }

    /// What every request to an image begins with.
    func requireInside(_ offset: UInt64, _ count: UInt64) throws(ImageError) {
        guard offset <= byteCount, count <= byteCount - offset else { throw .outOfRange }
    }
}

/// A host's failure as an image's.
func hosted<Value>(_ body: () throws(HostError) -> Value) throws(ImageError) -> Value {
    do throws(HostError) {
        return try body()
    } catch {
        throw .host(error)
    }
}
