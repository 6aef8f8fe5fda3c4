/// Little-endian fields in bytes that came from a file. Every read is total: a field that lies
/// wholly or partly past the end is zero, so that no header can trap the monitor.
struct ImageFields: Sendable {
    let bytes: [UInt8]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    func value<Value: FixedWidthInteger & UnsignedInteger>(at offset: Int) -> Value {
        let width = Value.bitWidth / 8
        guard offset >= 0, width <= bytes.count, offset <= bytes.count - width else { return 0 }
        var result: Value = 0
        for index in 0..<width {
            result |= Value(truncatingIfNeeded: bytes[offset + index]) << (8 * index)
        }
        return result
    }

    /// The bytes of `range` that exist.
    func slice(_ range: Range<Int>) -> [UInt8] {
        Array(bytes[range.clamped(to: 0..<bytes.count)])
    }
}
