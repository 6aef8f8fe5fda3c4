/// Numbers in qcow2's byte order, the network's.
extension [UInt8] {
    /// The caller knows that `offset` and the bytes after it lie inside.
    func big32(at offset: Int) -> UInt32 {
        var value: UInt32 = 0
        for index in offset..<offset + 4 { value = value << 8 | UInt32(self[index]) }
        return value
    }

    func big64(at offset: Int) -> UInt64 {
        UInt64(big32(at: offset)) << 32 | UInt64(big32(at: offset + 4))
    }

    mutating func setBig32(_ value: UInt32, at offset: Int) {
        for index in 0..<4 {
            self[offset + index] = UInt8(truncatingIfNeeded: value >> (24 - 8 * index))
        }
    }

    mutating func setBig64(_ value: UInt64, at offset: Int) {
        setBig32(UInt32(truncatingIfNeeded: value >> 32), at: offset)
        setBig32(UInt32(truncatingIfNeeded: value), at: offset + 4)
    }

    /// Whole numbers of a table, one after the other.
    func big64Table() -> [UInt64] {
        (0..<count / 8).map { big64(at: $0 * 8) }
    }
}

extension [UInt64] {
    /// The table as the file holds it.
    func bigEndianBytes() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count * 8)
        for (index, value) in enumerated() { bytes.setBig64(value, at: index * 8) }
        return bytes
    }
}

extension UInt64 {
    /// The next multiple of `unit`, a power of two; the caller knows that it fits.
    func roundedUp(to unit: UInt64) -> UInt64 { (self + unit - 1) & ~(unit - 1) }

    /// How many units of `unit` bytes cover this many.
    func dividedUp(by unit: UInt64) -> UInt64 { self / unit + (self % unit == 0 ? 0 : 1) }
}
