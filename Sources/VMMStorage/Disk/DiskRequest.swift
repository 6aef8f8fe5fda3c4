import VMMHost

/// What a guest asks of a disk, in bytes; inside the disk, which the caller has checked.
package enum DiskRequest {
    case read(GuestVector, offset: UInt64)
    case write(GuestVector, offset: UInt64)
    case flush
    case discard(offset: UInt64, count: UInt64)
    case writeZeros(offset: UInt64, count: UInt64, mayUnmap: Bool)

    /// How many bytes it moves or covers.
    var byteCount: UInt64 {
        switch self {
        case .read(let vector, _), .write(let vector, _): vector.byteCount
        case .flush: 0
        case .discard(_, let count), .writeZeros(_, let count, _): count
        }
    }

    /// How many bytes it covers without moving any.
    var rangeByteCount: UInt64 {
        switch self {
        case .read, .write, .flush: 0
        case .discard(_, let count), .writeZeros(_, let count, _): count
        }
    }

    var isDiscard: Bool {
        if case .discard = self { true } else { false }
    }
}
