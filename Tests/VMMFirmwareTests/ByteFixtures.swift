import VMMBase

@testable import VMMFirmware

extension Array where Element == UInt8 {
    /// The little-endian value at `offset`; the tests know that it is there.
    func little<Value: FixedWidthInteger & UnsignedInteger>(
        _ offset: Int, as type: Value.Type = Value.self
    ) -> Value {
        (0..<Value.bitWidth / 8).reduce(0) { $0 | Value(self[offset + $1]) << (8 * $1) }
    }

    /// The sum of all bytes modulo 256: zero in every firmware table.
    var sum: UInt8 { reduce(0, &+) }

    func ascii(_ range: Range<Int>) -> String { String(decoding: self[range], as: UTF8.self) }

    /// A copy with `bytes` at `offset`.
    func replacing(at offset: Int, with bytes: [UInt8]) -> [UInt8] {
        var copy = self
        copy.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        return copy
    }
}

/// The little-endian bytes of `value`.
func bytes<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value) -> [UInt8] {
    var builder = ByteBuilder()
    builder.append(value)
    return builder.bytes
}

/// A file in memory.
struct MemoryImage: ImageSource {
    let content: [UInt8]

    init(_ content: [UInt8]) {
        self.content = content
    }

    struct OutOfRange: Error {}

    var byteCount: UInt64 { UInt64(content.count) }

    func read(at offset: UInt64, count: Int) throws -> [UInt8] {
        guard offset <= byteCount, UInt64(count) <= byteCount - offset else { throw OutOfRange() }
        return Array(content[Int(offset)..<Int(offset) + count])
    }
}

/// A file that claims a size and delivers what it is told to.
struct BrokenImage: ImageSource {
    struct DiskFailure: Error, CustomStringConvertible {
        let description = "input/output error"
    }

    let byteCount: UInt64
    /// Nil makes reads throw.
    let answer: [UInt8]?

    func read(at offset: UInt64, count: Int) throws -> [UInt8] {
        guard let answer else { throw DiskFailure() }
        return answer
    }
}

/// xorshift64, so that fuzzing is the same in every run.
struct Dice {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func roll(_ sides: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int(state % UInt64(sides))
    }
}
