import VMMBase
import VMMHost
import VMMStorage
import VMMVirtIO

/// Request types (VirtIO 1.3, 5.2.6).
enum BlockRequestType {
    static let read: UInt32 = 0
    static let write: UInt32 = 1
    static let flush: UInt32 = 4
    static let getID: UInt32 = 8
    static let discard: UInt32 = 11
    static let writeZeros: UInt32 = 13
}

/// The last byte of every request.
enum BlockStatus: UInt8 {
    case ok = 0
    case ioError = 1
    case unsupported = 2
}

/// What a request asks for, checked against the disk: everything of the guest's that is a number
/// has been looked at once, here.
enum BlockRequest: Equatable {
    /// Byte offset; the data is what is left of the chain.
    case read(offset: UInt64)
    case write(offset: UInt64)
    case flush
    case getID
    case discard(offset: UInt64, count: UInt64)
    case writeZeros(offset: UInt64, count: UInt64, mayUnmap: Bool)
    /// Answered at once with this status.
    case refuse(BlockStatus)

    /// Header: type, reserved, sector (VirtIO 1.3, 5.2.6).
    static let headerByteCount = 16
    /// Discard and write-zeros: sector, sector count, flags.
    private static let segmentByteCount: UInt64 = 16
    private static let unmapFlag: UInt32 = 1

    /// Takes the header off `chain`, whose status byte is already taken, and decides. Nil when
    /// there is not even room for a header: the driver is broken.
    init?(_ chain: DescriptorChain, disk: BlockLimits) {
        guard let type = chain.readable.load(UInt32.self, at: 0),
            let sector = chain.readable.load(UInt64.self, at: 8)
        else { return nil }
        chain.readable.removeFirst(Self.headerByteCount)
        switch type {
        case BlockRequestType.read:
            self =
                Self.data(sector, chain.writable.byteCount, disk).map { .read(offset: $0) }
                ?? .refuse(.ioError)
        case BlockRequestType.write where disk.isReadOnly || disk.refusesChange(at: sector):
            self = .refuse(.ioError)
        case BlockRequestType.write:
            self =
                Self.data(sector, chain.readable.byteCount, disk).map { .write(offset: $0) }
                ?? .refuse(.ioError)
        case BlockRequestType.flush: self = .flush
        case BlockRequestType.getID: self = .getID
        case BlockRequestType.discard, BlockRequestType.writeZeros:
            self = Self.range(chain.readable, isDiscard: type == BlockRequestType.discard, disk)
        default: self = .refuse(.unsupported)
        }
    }

    /// The byte offset of a read or write, which has a largest size.
    private static func data(_ sector: UInt64, _ count: UInt64, _ disk: BlockLimits) -> UInt64? {
        count <= BlockLimits.maximumTransfer ? transfer(sector, count, disk) : nil
    }

    /// The byte offset of a transfer of whole sectors inside the disk.
    private static func transfer(_ sector: UInt64, _ count: UInt64, _ disk: BlockLimits) -> UInt64?
    {
        // Once: another thread may be changing the disk's size.
        let total = disk.sectorCount
        guard count > 0, count % Disk.sectorSize == 0, sector <= total,
            count / Disk.sectorSize <= total - sector
        else { return nil }
        return sector * Disk.sectorSize
    }

    private static func range(
        _ segment: GuestVector, isDiscard: Bool, _ disk: BlockLimits
    ) -> BlockRequest {
        guard !disk.isReadOnly, segment.byteCount == segmentByteCount,
            let sector = segment.load(UInt64.self, at: 0),
            let sectors = segment.load(UInt32.self, at: 8),
            let flags = segment.load(UInt32.self, at: 12)
        else { return .refuse(.ioError) }
        guard flags & ~(isDiscard ? 0 : unmapFlag) == 0, !isDiscard || disk.allowsDiscard else {
            return .refuse(.unsupported)
        }
        let bytes = UInt64(sectors) * Disk.sectorSize
        let most = isDiscard ? BlockLimits.maximumDiscardSectors : BlockLimits.maximumZeroSectors
        guard sectors <= most,
            !disk.refusesChange(at: sector),
            let offset = transfer(sector, bytes, disk)
        else { return .refuse(.ioError) }
        return isDiscard
            ? .discard(offset: offset, count: bytes)
            : .writeZeros(offset: offset, count: bytes, mayUnmap: flags & unmapFlag != 0)
    }
}

/// What bounds the requests of one disk.
struct BlockLimits {
    private let disk: Disk

    init(_ disk: Disk) { self.disk = disk }

    /// A driver may list the same memory again and again; Linux asks for 1280 KiB at once, Windows
    /// for 2 MiB.
    static let maximumTransfer: UInt64 = 32 << 20
    /// 16 MiB a request: what is written by hand where the file cannot zero a range.
    static let maximumZeroSectors: UInt32 = 32768

    /// 4 GiB a request, in whole bytes of 32 bits.
    static let maximumDiscardSectors = UInt32.max / UInt32(Disk.sectorSize)

    /// Of this moment: a disk may grow.
    var sectorCount: UInt64 { disk.sectorCount }
    var isReadOnly: Bool { disk.isReadOnly }
    /// A disk that is to keep its room does not give it back, whether the driver was told or not.
    var allowsDiscard: Bool { disk.isSparse }

    /// The first sector of a raw image that nobody declared as raw stays as it is.
    func refusesChange(at sector: UInt64) -> Bool { sector == 0 && disk.protectsFirstSector }
}
