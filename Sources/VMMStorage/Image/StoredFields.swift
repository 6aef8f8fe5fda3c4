/// Numbers in the structures of image files. Offsets are ours, from a specification's tables, and
/// lie inside the bytes; the numbers that come out are the file's, and to be trusted with nothing.
extension [UInt8] {
    func bigEndian<Value: FixedWidthInteger & UnsignedInteger>(
        _ type: Value.Type, at offset: Int
    ) -> Value {
        var value: Value = 0
        for index in 0..<Value.bitWidth / 8 {
            value = value << 8 | Value(truncatingIfNeeded: self[offset + index])
        }
        return value
    }

    /// The whole numbers of a table, one after the other.
    func bigEndianTable() -> [UInt64] {
        (0..<count / 8).map { bigEndian(UInt64.self, at: $0 * 8) }
    }

    func littleEndian<Value: FixedWidthInteger & UnsignedInteger>(
        _ type: Value.Type, at offset: Int
    ) -> Value {
        bigEndian(type, at: offset).byteSwapped
    }

    mutating func storeBigEndian<Value: FixedWidthInteger & UnsignedInteger>(
        _ value: Value, at offset: Int
    ) {
        for index in 0..<Value.bitWidth / 8 {
            let shift = Value.bitWidth - 8 - 8 * index
            self[offset + index] = UInt8(truncatingIfNeeded: value >> Value(shift))
        }
    }

    mutating func storeLittleEndian<Value: FixedWidthInteger & UnsignedInteger>(
        _ value: Value, at offset: Int
    ) {
        storeBigEndian(value.byteSwapped, at: offset)
    }

    mutating func store(_ bytes: some Sequence<UInt8>, at offset: Int) {
        for (index, byte) in bytes.enumerated() { self[offset + index] = byte }
    }

    /// Whether `text` in ASCII stands at `offset`.
    func holds(_ text: String, at offset: Int) -> Bool {
        self[offset...].starts(with: text.utf8)
    }
}

extension [UInt64] {
    /// The table as the file holds it.
    func bigEndianBytes() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count * 8)
        for (index, value) in enumerated() { bytes.storeBigEndian(value, at: index * 8) }
        return bytes
    }
}

extension UInt64 {
    /// The next multiple of `unit`, a power of two; the caller knows that it fits.
    func roundedUp(to unit: UInt64) -> UInt64 { (self + unit - 1) & ~(unit - 1) }

    /// How many units of `unit` bytes cover this many.
    func dividedUp(by unit: UInt64) -> UInt64 { self / unit + (self % unit == 0 ? 0 : 1) }
}
