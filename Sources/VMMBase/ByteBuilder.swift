/// Builds little-endian binary structures (ACPI tables, boot parameters) byte by byte.
package struct ByteBuilder: Sendable {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    package init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    package var count: Int { bytes.count }

    /// Appends `value` in little-endian order, as wide as its type.
    package mutating func append<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) {
        var rest = value
        for _ in 0..<(Value.bitWidth / 8) {
            bytes.append(UInt8(truncatingIfNeeded: rest))
            rest = Value.bitWidth > 8 ? rest >> 8 : 0
        }
    }

    package mutating func append(bytes more: [UInt8]) {
        bytes.append(contentsOf: more)
    }

    /// Appends `text` in ASCII, cut or padded with `padding` to exactly `count` bytes.
    package mutating func append(ascii text: String, count: Int, padding: UInt8 = 0x20) {
        let utf8 = Array(text.utf8.prefix(count))
        bytes.append(contentsOf: utf8)
        bytes.append(contentsOf: repeatElement(padding, count: count - utf8.count))
    }

    package mutating func appendZeros(_ count: Int) {
        bytes.append(contentsOf: repeatElement(0, count: count))
    }

    /// Appends zeros until the length is a multiple of `alignment`.
    package mutating func align(to alignment: Int) {
        appendZeros((alignment - bytes.count % alignment) % alignment)
    }

    /// Overwrites the bytes at `offset`, which must already exist, with `value`.
    package mutating func patch<Value: FixedWidthInteger & UnsignedInteger>(
        _ value: Value, at offset: Int
    ) {
        precondition(offset + Value.bitWidth / 8 <= bytes.count, "a patch lies inside the bytes")
        for index in 0..<(Value.bitWidth / 8) {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * Value(index)))
        }
    }
}
