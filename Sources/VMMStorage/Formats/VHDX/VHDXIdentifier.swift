/// A GUID as it stands in a file.
struct VHDXIdentifier: Hashable {
    static let byteCount = 16
    static let zero = VHDXIdentifier(high: 0, low: 0)

    private let high: UInt64
    private let low: UInt64

    private init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// As specifications write it, the last two groups as one number: the first three are
    /// little-endian in a file, the rest is not.
    init(_ first: UInt32, _ second: UInt16, _ third: UInt16, _ rest: UInt64) {
        high =
            UInt64(first.byteSwapped) << 32 | UInt64(second.byteSwapped) << 16
            | UInt64(third.byteSwapped)
        low = rest
    }

    init(of bytes: [UInt8], at offset: Int) {
        high = bytes.bigEndian(UInt64.self, at: offset)
        low = bytes.bigEndian(UInt64.self, at: offset + 8)
    }

    static func random() -> VHDXIdentifier {
        VHDXIdentifier(high: .random(in: 1...UInt64.max), low: .random(in: 0...UInt64.max))
    }

    func store(in bytes: inout [UInt8], at offset: Int) {
        bytes.storeBigEndian(high, at: offset)
        bytes.storeBigEndian(low, at: offset + 8)
    }
}
