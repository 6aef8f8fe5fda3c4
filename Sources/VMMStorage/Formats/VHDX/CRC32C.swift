/// The Castagnoli checksum (RFC 3720, appendix B.4), which every structure of a VHDX carries.
enum CRC32C {
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(byte) { value, _ in
            value & 1 == 0 ? value >> 1 : value >> 1 ^ 0x82f6_3b78
        }
    }

    static func checksum(_ bytes: [UInt8]) -> UInt32 {
        let table = table
        var value = UInt32.max
        for byte in bytes {
            value = value >> 8 ^ table[Int(UInt8(truncatingIfNeeded: value) ^ byte)]
        }
        return ~value
    }

    /// A structure whose field of four bytes at `offset` has the checksum of the rest, with that
    /// field as zeros.
    static func seal(_ bytes: inout [UInt8], at offset: Int) {
        bytes.storeLittleEndian(0 as UInt32, at: offset)
        bytes.storeLittleEndian(checksum(bytes), at: offset)
    }

    static func isSealed(_ bytes: [UInt8], at offset: Int) -> Bool {
        var copy = bytes
        seal(&copy, at: offset)
        return copy.littleEndian(UInt32.self, at: offset)
            == bytes.littleEndian(UInt32.self, at: offset)
    }
}
