/// An input, taken from its front. What is not there any more is zero.
struct FuzzInput {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { rest = bytes[...] }

    var isEmpty: Bool { rest.isEmpty }

    /// The next number, little-endian.
    mutating func next<Value: FixedWidthInteger & UnsignedInteger>(
        _: Value.Type = Value.self
    ) -> Value {
        var value: Value = 0
        for (index, byte) in take(Value.bitWidth / 8).enumerated() {
            value |= Value(byte) << (8 * index)
        }
        return value
    }

    /// At most `count` bytes.
    mutating func take(_ count: Int) -> [UInt8] {
        let bytes = rest.prefix(count)
        rest = rest.dropFirst(count)
        return Array(bytes)
    }

    mutating func takeAll() -> [UInt8] { take(rest.count) }

    /// A number as `next` reads it.
    static func bytes<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) -> [UInt8] {
        (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
}
