/// What a client of the host says first: `CONNECT <port>` and the end of the line.
enum ConnectLine: Equatable {
    /// The end of the line has not come yet.
    case incomplete
    case malformed
    /// The guest's port, and the length of the line with its end. What follows is the stream's.
    case port(UInt32, byteCount: Int)

    /// The longest line, with its end.
    static let maximumByteCount = 32
    private static let word: [UInt8] = Array("connect".utf8)
    private static let lineFeed: UInt8 = 10

    /// Reads the line from the first bytes of a stream.
    init(_ bytes: [UInt8]) {
        guard let end = bytes.prefix(Self.maximumByteCount).firstIndex(of: Self.lineFeed) else {
            self = bytes.count < Self.maximumByteCount ? .incomplete : .malformed
            return
        }
        let words = bytes[..<end].split(whereSeparator: Self.isBlank)
        guard words.count == 2, words[0].map(Self.lowercased) == Self.word,
            let port = Self.number(words[1])
        else {
            self = .malformed
            return
        }
        self = .port(port, byteCount: end + 1)
    }

    /// Space, tab, and the carriage return that some clients send before the line's end.
    private static func isBlank(_ byte: UInt8) -> Bool { byte == 32 || byte == 9 || byte == 13 }

    private static func lowercased(_ byte: UInt8) -> UInt8 {
        (65...90).contains(byte) ? byte + 32 : byte
    }

    /// Decimal digits only.
    private static func number(_ digits: ArraySlice<UInt8>) -> UInt32? {
        var value: UInt32 = 0
        for digit in digits {
            guard (48...57).contains(digit) else { return nil }
            let (product, isTooLarge) = value.multipliedReportingOverflow(by: 10)
            let (sum, carries) = product.addingReportingOverflow(UInt32(digit - 48))
            if isTooLarge || carries { return nil }
            value = sum
        }
        return value
    }
}
