/// One value of an option: text, with the name it was given under.
struct OptionValue: Decoder, SingleValueDecodingContainer {
    let option: String
    let key: String
    let text: String

    var codingPath: [any CodingKey] { [] }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    func container<Key: CodingKey>(keyedBy: Key.Type) throws -> KeyedDecodingContainer<Key> {
        throw problem("is a plain value")
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
        guard text.first == "[", text.last == "]" else { throw problem("expected a list: [a,b]") }
        let inner = text.dropFirst().dropLast()
        let items =
            inner.isEmpty ? [] : inner.split(separator: ",", omittingEmptySubsequences: false)
        return OptionList(
            items: items.map { OptionValue(option: option, key: key, text: String($0)) })
    }

    func singleValueContainer() -> any SingleValueDecodingContainer { self }

    func decodeNil() -> Bool { text.isEmpty }
    func decode(_: String.Type) -> String { text }

    func decode(_: Bool.Type) throws -> Bool {
        switch text.lowercased() {
        case "on", "true": return true
        case "off", "false": return false
        default: throw problem("expected on or off")
        }
    }

    func decode(_: UInt64.Type) throws -> UInt64 {
        guard let bytes = Self.size(text) else {
            throw problem("expected a number of bytes, with K, M or G behind it if you like")
        }
        return bytes
    }

    /// A size with an optional binary suffix; nil when it is none or passes 64 bits.
    static func size(_ text: String) -> UInt64? {
        let shifts: [Character: UInt64] = ["K": 10, "M": 20, "G": 30]
        guard let last = text.last else { return nil }
        guard let shift = shifts[last] else { return UInt64(text) }
        guard let number = UInt64(text.dropLast()) else { return nil }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        return overflow ? nil : bytes
    }

    func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        if let integer = type as? any FixedWidthInteger.Type, type != UInt64.self {
            guard let value = Self.integer(text, integer) as? Value else {
                throw problem("expected a whole number from \(integer.min) to \(integer.max)")
            }
            return value
        }
        if let value = try primitive(type) { return value }
        do {
            return try Value(from: self)
        } catch is DecodingError {
            throw problem(Self.allowed(type))
        }
    }

    private func primitive<Value>(_ type: Value.Type) throws -> Value? {
        if type == String.self { return text as? Value }
        if type == Bool.self { return try decode(Bool.self) as? Value }
        if type == UInt64.self { return try decode(UInt64.self) as? Value }
        return nil
    }

    private static func integer<Value: FixedWidthInteger>(
        _ text: String, _: Value.Type
    ) -> Value? {
        Value(text)
    }

    /// What an enumeration would have accepted.
    private static func allowed<Value>(_ type: Value.Type) -> String {
        guard let choices = type as? any OptionChoice.Type else { return "is not understood" }
        return "expected one of " + choices.allSpellings.joined(separator: ", ")
    }

    func problem(_ reason: String) -> ConfigurationProblem {
        ConfigurationProblem(option: "\(option) \(key)", value: text, reason: reason)
    }
}

/// A value that is one of a few words. Gives errors and help the list of them.
package protocol OptionChoice: CaseIterable, RawRepresentable where RawValue == String {}

extension OptionChoice {
    static var allSpellings: [String] { allCases.map(\.rawValue) }
}

/// `[a,b]`.
private struct OptionList: UnkeyedDecodingContainer {
    let items: [OptionValue]
    var codingPath: [any CodingKey] { [] }
    var count: Int? { items.count }
    var currentIndex = 0
    var isAtEnd: Bool { currentIndex >= items.count }

    init(items: [OptionValue]) {
        self.items = items
    }

    mutating func decodeNil() -> Bool { false }

    mutating func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        guard !isAtEnd else {
            throw DecodingError.valueNotFound(
                type, DecodingError.Context(codingPath: [], debugDescription: "the list ends"))
        }
        defer { currentIndex += 1 }
        return try items[currentIndex].decode(type)
    }

    mutating func nestedContainer<Key: CodingKey>(
        keyedBy: Key.Type
    ) throws -> KeyedDecodingContainer<Key> { throw nested }
    mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer { throw nested }
    mutating func superDecoder() throws -> any Decoder { throw nested }

    private var nested: DecodingError {
        .dataCorrupted(.init(codingPath: [], debugDescription: "a list of lists"))
    }
}
