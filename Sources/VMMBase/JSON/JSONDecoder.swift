/// Decodes any `Decodable` from a JSON value. Unknown members are ignored, null counts as absent,
/// and numbers never lose precision: what does not fit is an error. Errors name the path.
///
/// The names of an enumeration that is an `OptionChoice` are listed when another one is given.
package enum JSONDecoder {
    package static func decode<Value: Decodable>(
        _: Value.Type, from json: JSONValue, path: String = ""
    ) throws(JSONError) -> Value {
        do {
            return try Node(json: json, path: path).decode(Value.self)
        } catch let error as JSONError {
            throw error
        } catch {
            throw JSONError(path: path, reason: "\(error)")
        }
    }

    package static func decode<Value: Decodable>(
        _ type: Value.Type, from text: [UInt8]
    ) throws(JSONError) -> Value {
        try decode(type, from: JSONParser.parse(text))
    }
}

/// One value and where it stands.
private struct Node: Decoder, SingleValueDecodingContainer {
    let json: JSONValue
    let path: String

    /// Bytes.
    private static let nameLimit = 256

    var codingPath: [any CodingKey] { [] }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    func error(_ reason: String) -> JSONError { JSONError(path: path, reason: reason) }

    func container<Key: CodingKey>(keyedBy: Key.Type) throws -> KeyedDecodingContainer<Key> {
        guard case .object(let members) = json else { throw expected("an object") }
        // Nothing of ours has a longer name, and a long one takes long to hash.
        let known = members.filter { $0.name.utf8.count <= Self.nameLimit }
        let values = Dictionary(known.map { ($0.name, $0.value) }) { first, _ in first }
        return KeyedDecodingContainer(Members<Key>(values: values, path: path))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
        guard case .array(let values) = json else { throw expected("a list") }
        return Elements(values: values, path: path)
    }

    func singleValueContainer() -> any SingleValueDecodingContainer { self }

    func expected(_ what: String) -> JSONError { error("expected \(what), found \(json.kind)") }

    func decodeNil() -> Bool { json == .null }

    func decode(_: Bool.Type) throws -> Bool {
        guard case .bool(let value) = json else { throw expected("true or false") }
        return value
    }

    func decode(_: String.Type) throws -> String {
        guard case .string(let value) = json else { throw expected("a string") }
        return value
    }

    func decode(_: Double.Type) throws -> Double {
        guard case .number(let text) = json else { throw expected("a number") }
        guard let value = Double(text), value.isFinite else {
            throw error("the number is too large")
        }
        return value
    }

    private func integer<Value: FixedWidthInteger>(_: Value.Type) throws -> Value {
        guard case .number(let text) = json else { throw expected("a number") }
        guard let value = Value(text) else {
            throw error("expected a whole number from \(Value.min) to \(Value.max), found \(text)")
        }
        return value
    }

    func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        if let integer = type as? any FixedWidthInteger.Type {
            guard let value = try self.integer(integer) as? Value else {
                throw expected("a number")
            }
            return value
        }
        if type == String.self, let value = try decode(String.self) as? Value { return value }
        if type == Bool.self, let value = try decode(Bool.self) as? Value { return value }
        if type == Double.self, let value = try decode(Double.self) as? Value { return value }
        do {
            return try Value(from: self)
        } catch is DecodingError {
            guard let choices = type as? any OptionChoice.Type else {
                throw error("is not understood")
            }
            throw error("expected one of " + choices.allSpellings.joined(separator: ", "))
        }
    }
}

private struct Members<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let values: [String: JSONValue]
    let path: String

    var codingPath: [any CodingKey] { [] }
    var allKeys: [Key] { values.keys.compactMap { Key(stringValue: $0) } }

    func contains(_ key: Key) -> Bool { values[key.stringValue] != nil }
    func decodeNil(forKey key: Key) -> Bool { values[key.stringValue] ?? .null == .null }

    private func node(_ key: Key) throws -> Node {
        let place = JSONError.path(path, key.stringValue)
        guard let value = values[key.stringValue], value != .null else {
            throw JSONError(path: place, reason: "is missing")
        }
        return Node(json: value, path: place)
    }

    func decode<Value: Decodable>(_ type: Value.Type, forKey key: Key) throws -> Value {
        try node(key).decode(type)
    }

    func nestedContainer<Nested: CodingKey>(
        keyedBy: Nested.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<Nested> { try node(key).container(keyedBy: Nested.self) }

    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
        try node(key).unkeyedContainer()
    }

    func superDecoder() throws -> any Decoder {
        throw JSONError(path: path, reason: "has no super")
    }
    func superDecoder(forKey key: Key) throws -> any Decoder { try node(key) }
}

private struct Elements: UnkeyedDecodingContainer {
    let values: [JSONValue]
    let path: String
    private(set) var currentIndex = 0

    init(values: [JSONValue], path: String) {
        self.values = values
        self.path = path
    }

    var codingPath: [any CodingKey] { [] }
    var count: Int? { values.count }
    var isAtEnd: Bool { currentIndex >= values.count }

    private mutating func next() throws -> Node {
        guard !isAtEnd else { throw JSONError(path: path, reason: "is too short") }
        defer { currentIndex += 1 }
        return Node(json: values[currentIndex], path: "\(path)[\(currentIndex)]")
    }

    mutating func decodeNil() -> Bool {
        guard !isAtEnd, values[currentIndex] == .null else { return false }
        currentIndex += 1
        return true
    }

    mutating func decode<Value: Decodable>(_ type: Value.Type) throws -> Value {
        try next().decode(type)
    }

    mutating func nestedContainer<Nested: CodingKey>(
        keyedBy: Nested.Type
    ) throws -> KeyedDecodingContainer<Nested> { try next().container(keyedBy: Nested.self) }

    mutating func nestedUnkeyedContainer() throws -> any UnkeyedDecodingContainer {
        try next().unkeyedContainer()
    }

    mutating func superDecoder() throws -> any Decoder { try next() }
}
