/// Makes a JSON value of any `Encodable`; optionals without a value leave no member.
package enum JSONEncoder {
    package static func encode(_ value: some Encodable) throws(JSONError) -> JSONValue {
        let place = Place()
        do {
            try place.encode(value)
        } catch let error as JSONError {
            throw error
        } catch {
            throw JSONError(reason: "\(error)")
        }
        return place.json
    }
}

/// Where one value goes, with what was put there so far.
private final class Place: Encoder, SingleValueEncodingContainer {
    private enum Content {
        case nothing
        case value(JSONValue)
        case members([(name: String, place: Place)])
        case elements([Place])
    }

    private var content = Content.nothing

    var codingPath: [any CodingKey] { [] }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    var json: JSONValue {
        switch content {
        case .nothing: .null
        case .value(let value): value
        case .members(let members):
            .object(members.map { JSONValue.Member($0.name, $0.place.json) })
        case .elements(let places): .array(places.map(\.json))
        }
    }

    /// A new place under a name. A type may ask for its container several times, and put all of
    /// its members into one object.
    func member(_ name: String) -> Place {
        let place = Place()
        if case .members(var members) = content {
            members.append((name, place))
            content = .members(members)
        } else {
            content = .members([(name, place)])
        }
        return place
    }

    /// A new place at the end of the list.
    func element() -> Place {
        let place = Place()
        if case .elements(var places) = content {
            places.append(place)
            content = .elements(places)
        } else {
            content = .elements([place])
        }
        return place
    }

    var count: Int { if case .elements(let places) = content { places.count } else { 0 } }

    func container<Key: CodingKey>(keyedBy: Key.Type) -> KeyedEncodingContainer<Key> {
        if case .nothing = content { content = .members([]) }
        return KeyedEncodingContainer(Members<Key>(place: self))
    }

    func unkeyedContainer() -> any UnkeyedEncodingContainer {
        if case .nothing = content { content = .elements([]) }
        return Elements(place: self)
    }

    func singleValueContainer() -> any SingleValueEncodingContainer { self }

    func encodeNil() { content = .value(.null) }
    func encode(_ value: Bool) { content = .value(.bool(value)) }
    func encode(_ value: String) { content = .value(.string(value)) }

    func encode(_ value: Double) throws {
        guard value.isFinite else { throw JSONError(reason: "\(value) is no JSON number") }
        content = .value(.number("\(value)"))
    }

    func encode<Value: Encodable>(_ value: Value) throws {
        switch value {
        case let integer as any FixedWidthInteger: content = .value(.number("\(integer)"))
        case let text as String: encode(text)
        case let flag as Bool: encode(flag)
        case let number as Double: try encode(number)
        case let json as JSONValue: content = .value(json)
        default: try value.encode(to: self)
        }
    }
}

private struct Members<Key: CodingKey>: KeyedEncodingContainerProtocol {
    let place: Place
    var codingPath: [any CodingKey] { [] }

    mutating func encodeNil(forKey key: Key) { place.member(key.stringValue).encodeNil() }

    mutating func encode<Value: Encodable>(_ value: Value, forKey key: Key) throws {
        try place.member(key.stringValue).encode(value)
    }

    mutating func nestedContainer<Nested: CodingKey>(
        keyedBy: Nested.Type, forKey key: Key
    ) -> KeyedEncodingContainer<Nested> {
        place.member(key.stringValue).container(keyedBy: Nested.self)
    }

    mutating func nestedUnkeyedContainer(forKey key: Key) -> any UnkeyedEncodingContainer {
        place.member(key.stringValue).unkeyedContainer()
    }

    mutating func superEncoder() -> any Encoder { place }
    mutating func superEncoder(forKey key: Key) -> any Encoder { place.member(key.stringValue) }
}

private struct Elements: UnkeyedEncodingContainer {
    let place: Place
    var codingPath: [any CodingKey] { [] }
    var count: Int { place.count }

    mutating func encodeNil() { place.element().encodeNil() }
    mutating func encode<Value: Encodable>(_ value: Value) throws {
        try place.element().encode(value)
    }

    mutating func nestedContainer<Nested: CodingKey>(
        keyedBy: Nested.Type
    ) -> KeyedEncodingContainer<Nested> { place.element().container(keyedBy: Nested.self) }

    mutating func nestedUnkeyedContainer() -> any UnkeyedEncodingContainer {
        place.element().unkeyedContainer()
    }

    mutating func superEncoder() -> any Encoder { place.element() }
}
