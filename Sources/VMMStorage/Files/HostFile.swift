import Synchronization
import VMMBase
import VMMHost

/// A file or block device of the host, opened for an image. Errors are sentences for the user.
package final class HostFile: ImageFile, Sendable {
    /// How much of the file an advisory lock covers (CH's `lock_granularity`).
    package enum Lock: Sendable {
        case none
        /// The first block only: enough to meet others that lock likewise or whole files.
        case byteRange
        case whole
    }

    package let path: String
    package let isReadOnly: Bool
    package let isBlockDevice: Bool
    package let metadata: FileDescriptor.Metadata
    /// In bytes: 512 for files.
    package let logicalBlockSize: UInt32
    package let physicalBlockSize: UInt32
    package let alignment: Int
    package var descriptor: FileDescriptor? { data }

    /// What engines use, past the page cache if asked for.
    private let data: FileDescriptor
    /// What the calls here use: always through the page cache, so that no call needs alignment.
    /// The kernel keeps both views of a regular file the same; of a block device it may not while
    /// a direct write is in flight.
    private let calls: FileDescriptor
    private let lostWrites = Atomic<Bool>(false)

    /// Opens `path` and locks it: shared when read-only, else alone. `isDirect`: engines bypass
    /// the page cache. `isPlain`: it must be a file, and no link to one.
    package init(
        path: String, isReadOnly: Bool, isDirect: Bool = false, lock: Lock = .whole,
        isPlain: Bool = false
    ) throws(ImageError) {
        self.path = path
        self.isReadOnly = isReadOnly
        let links: FileDescriptor.OpenOptions = isPlain ? .noFollow : []
        let access: FileDescriptor.OpenOptions = isReadOnly ? .readOnly : .readWrite
        // A device notices when it is opened: what is neither file nor disk is not. Who exchanges
        // it meanwhile has his device opened, without a wait, but not used.
        try Self.requireDisk(Self.open(path, [.pathOnly, links]), isPlain)
        calls = try Self.open(path, [access, .nonBlocking, links])
        try Self.requireDisk(calls, isPlain)
        data = isDirect ? try Self.open(path, [access, .direct, links]) : calls
        let calls = calls
        metadata = try hosted { () throws(HostError) in
            try calls.setNonBlocking(false)
            return try calls.metadata()
        }
        isBlockDevice = metadata.kind == .blockDevice
        logicalBlockSize = isBlockDevice ? calls.logicalSectorSize : 512
        physicalBlockSize = isBlockDevice ? calls.physicalSectorSize : 512
        alignment = isDirect ? data.directAlignment : 1
        try take(lock)
    }

    private func take(_ lock: Lock) throws(ImageError) {
        let count: UInt64
        switch lock {
        case .none: return
        case .byteRange: count = UInt64(max(logicalBlockSize, physicalBlockSize))
        case .whole: count = 0
        }
        let isLocked: Bool
        do throws(HostError) {
            isLocked = try calls.lock(exclusive: !isReadOnly, count: count)
        } catch {
            throw .host(error)
        }
        guard isLocked else { throw .inUse }
    }

    private static func open(
        _ path: String, _ options: FileDescriptor.OpenOptions
    ) throws(ImageError) -> FileDescriptor {
        try hosted { () throws(HostError) in try FileDescriptor.open(path, options) }
    }

    private static func requireDisk(
        _ file: FileDescriptor, _ isPlain: Bool
    ) throws(ImageError) {
        let kind = try hosted { () throws(HostError) in try file.kind() }
        switch kind {
        case .regular: return
        case .blockDevice where !isPlain: return
        case .blockDevice: throw .invalid("is a block device; a file is needed")
        case .directory:
            throw .invalid("is a directory; a file or a block device is needed")
        case .characterDevice, .symbolicLink, .other:
            throw .invalid("is neither a file nor a block device")
        }
    }

    // MARK: ImageFile

    package func byteCount() throws(HostError) -> UInt64 { try calls.metadata().byteCount }

    package func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(HostError)
        -> Int
    {
        try calls.read(into: &bytes, at: offset)
    }

    package func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(HostError) {
        try calls.write(bytes, at: offset)
    }

    package func writeZeros(
        at offset: UInt64, count: UInt64, mayUnmap: Bool
    ) throws(HostError) {
        guard count > 0 else { return }
        do throws(HostError) {
            try calls.apply(.writeZeros(mayUnmap: mayUnmap), offset: offset, count: count)
        } catch  where error.isUnsupported {
            try calls.writeZeros(offset: offset, count: count)
        }
    }

    package func discard(at offset: UInt64, count: UInt64) throws(HostError) {
        guard count > 0 else { return }
        do throws(HostError) {
            try calls.apply(.discard, offset: offset, count: count)
        } catch  where error.isUnsupported {
            return
        }
    }

    package func resize(to byteCount: UInt64) throws(HostError) {
        try calls.resize(to: byteCount)
    }

    /// Takes all the room that the file's size promises; block devices have theirs.
    package func preallocate() throws(HostError) {
        if !isBlockDevice { try calls.allocate(byteCount()) }
    }

    /// The kernel tells of a write that it lost once: every later call fails, too.
    package func synchronize() throws(HostError) {
        guard !hasLostWrites else { throw Self.lostWritesError }
        do throws(HostError) {
            try calls.synchronize()
        } catch {
            setLostWrites()
            throw error
        }
    }

    package var hasLostWrites: Bool { lostWrites.load(ordering: .acquiring) }
    /// Who uses `descriptor` has been told so by the kernel: every later `synchronize` fails.
    func setLostWrites() { lostWrites.store(true, ordering: .releasing) }
    static let lostWritesError = HostError("make earlier writes stable", code: HostError.ioCode)

    package func allocatedRange(from offset: UInt64) throws(HostError) -> Range<UInt64>? {
        try calls.allocatedRange(from: offset)
    }
}
