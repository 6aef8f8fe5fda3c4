/// Reads a JSON text (RFC 8259) that anybody may have written: its depth and the number of its
/// values are bounded, and so is what it makes the process allocate.
package struct JSONParser {
    /// Lists and objects in one another.
    package static let depthLimit = 64
    /// Values of all kinds in one text.
    package static let valueLimit = 1 << 16

    /// Bytes in a string: more than a path or a kernel's command line has. To compare two strings,
    /// Swift sorts the marks of what may be one single character: short ones cost nothing.
    package static let stringLimit = 8 << 10

    private let bytes: [UInt8]
    private var position = 0
    private var depth = 0
    private var valueCount = 0

    /// The one value that `bytes`, UTF-8, hold.
    package static func parse(_ bytes: [UInt8]) throws(JSONError) -> JSONValue {
        var parser = JSONParser(bytes: bytes)
        let value = try parser.value()
        parser.skipSpace()
        guard parser.position == bytes.count else { throw parser.error("expected the end") }
        return value
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private func error(_ reason: String) -> JSONError {
        JSONError(reason: "no JSON: \(reason) at byte \(position)")
    }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = next, [0x20, 0x09, 0x0a, 0x0d].contains(byte) { position += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard next == byte else { return false }
        position += 1
        return true
    }

    private mutating func value() throws(JSONError) -> JSONValue {
        skipSpace()
        valueCount += 1
        guard valueCount <= Self.valueLimit else {
            throw error("there are more than \(Self.valueLimit) values")
        }
        switch next {
        case UInt8(ascii: "{"):
            return try nested { parser throws(JSONError) in try parser.object() }
        case UInt8(ascii: "["): return try nested { parser throws(JSONError) in try parser.array() }
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case .some: return .number(try number())
        case nil: throw error("expected a value")
        }
    }

    private mutating func word(
        _ word: String, _ value: JSONValue
    ) throws(JSONError) -> JSONValue {
        guard bytes[position...].starts(with: word.utf8) else { throw error("expected a value") }
        position += word.utf8.count
        return value
    }

    private mutating func nested(
        _ body: (inout JSONParser) throws(JSONError) -> JSONValue
    ) throws(JSONError) -> JSONValue {
        depth += 1
        guard depth <= Self.depthLimit else {
            throw error("there are more than \(Self.depthLimit) levels")
        }
        position += 1
        let value = try body(&self)
        depth -= 1
        return value
    }

    private mutating func array() throws(JSONError) -> JSONValue {
        var values: [JSONValue] = []
        skipSpace()
        if take(UInt8(ascii: "]")) { return .array(values) }
        repeat {
            values.append(try value())
            skipSpace()
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "]")) else { throw error("expected , or ]") }
        return .array(values)
    }

    private mutating func object() throws(JSONError) -> JSONValue {
        var members: [JSONValue.Member] = []
        var names: Set<[UInt8]> = []
        skipSpace()
        if take(UInt8(ascii: "}")) { return .object(members) }
        repeat {
            skipSpace()
            guard next == UInt8(ascii: "\"") else { throw error("expected a name") }
            let name = try string()
            // Parsers disagree on which of two counts, and so would those who check the text and
            // those who use it.
            guard names.insert(Array(name.utf8)).inserted else {
                throw error("'\(name)' is there twice")
            }
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw error("expected :") }
            members.append(JSONValue.Member(name, try value()))
            skipSpace()
        } while take(UInt8(ascii: ","))
        guard take(UInt8(ascii: "}")) else { throw error("expected , or }") }
        return .object(members)
    }

    // MARK: numbers

    private mutating func number() throws(JSONError) -> String {
        let start = position
        _ = take(UInt8(ascii: "-"))
        if !take(UInt8(ascii: "0")) { try digits() }
        if take(UInt8(ascii: ".")) { try digits() }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            try digits()
        }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private mutating func digits() throws(JSONError) {
        let start = position
        while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
            position += 1
        }
        guard position > start else { throw error("expected a value") }
    }

    // MARK: strings

    private mutating func string() throws(JSONError) -> String {
        position += 1
        var content: [UInt8] = []
        while let byte = next, byte != UInt8(ascii: "\"") {
            guard byte >= 0x20 else { throw error("there is a control character") }
            guard content.count < Self.stringLimit else {
                throw error("a string has more than \(Self.stringLimit) bytes")
            }
            position += 1
            if byte == UInt8(ascii: "\\") {
                content += String(try escaped()).utf8
            } else {
                content.append(byte)
            }
        }
        guard take(UInt8(ascii: "\"")) else { throw error("a string does not end") }
        guard let text = String(validating: content, as: UTF8.self) else {
            throw error("a string is no UTF-8")
        }
        return text
    }

    private static let escapes: [UInt8: Unicode.Scalar] = [
        UInt8(ascii: "\""): "\"", UInt8(ascii: "\\"): "\\", UInt8(ascii: "/"): "/",
        UInt8(ascii: "b"): "\u{8}", UInt8(ascii: "f"): "\u{c}", UInt8(ascii: "n"): "\n",
        UInt8(ascii: "r"): "\r", UInt8(ascii: "t"): "\t",
    ]

    private mutating func escaped() throws(JSONError) -> Character {
        if let byte = next, let scalar = Self.escapes[byte] {
            position += 1
            return Character(scalar)
        }
        guard take(UInt8(ascii: "u")) else { throw error("there is no such escape") }
        let first = try hexadecimal()
        if let scalar = Unicode.Scalar(first) { return Character(scalar) }
        guard UTF16.isLeadSurrogate(first), take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else {
            throw error("half a character")
        }
        let second = try hexadecimal()
        guard UTF16.isTrailSurrogate(second) else { throw error("half a character") }
        return Character(UTF16.decode(UTF16.EncodedScalar([first, second])))
    }

    /// Four hexadecimal digits.
    private mutating func hexadecimal() throws(JSONError) -> UInt16 {
        guard position + 4 <= bytes.count else { throw error("expected four hex digits") }
        let digits = bytes[position..<position + 4]
        guard digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let value = UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
        else { throw error("expected four hex digits") }
        position += 4
        return value
    }
}
