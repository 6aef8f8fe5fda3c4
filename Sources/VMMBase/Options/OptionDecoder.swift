/// Decodes any `Decodable` from an option's `key=value` pairs, by the same keys as its JSON.
///
/// Spelling of values: Bool is on/off/true/false; `UInt64` is a size and may end in K, M or G
/// (binary); other integers are plain; arrays are `[a,b]`.
package struct OptionDecoder {
    /// Decodes `text`; keys that `fields` does not list are refused by name.
    package static func decode<Value: Decodable>(
        _: Value.Type, from text: OptionText, fields: [OptionField]
    ) throws(ConfigurationProblem) -> Value {
        for pair in text.pairs where !fields.contains(where: { $0.key == pair.key }) {
            let known = fields.filter { !$0.isHidden }.map(\.key).joined(separator: ", ")
            throw ConfigurationProblem(
                option: text.option, value: pair.key, reason: "unknown key; known are \(known)")
        }
        for pair in text.pairs where pair.value == nil {
            throw ConfigurationProblem(
                option: text.option, value: pair.key, reason: "needs a value: \(pair.key)=...")
        }
        do {
            return try Value(from: PairsDecoder(text: text))
        } catch let problem as ConfigurationProblem {
            throw problem
        } catch DecodingError.keyNotFound(let key, _) {
            throw ConfigurationProblem(
                option: text.option, value: "", reason: "needs \(key.stringValue)=...")
        } catch {
            throw ConfigurationProblem(option: text.option, value: "", reason: "\(error)")
        }
    }
}

/// The top level: one keyed container over the pairs.
private struct PairsDecoder: Decoder {
    let text: OptionText
    var codingPath: [any CodingKey] { [] }
    var userInfo: [CodingUserInfoKey: Any] { [:] }

    func container<Key: CodingKey>(keyedBy: Key.Type) -> KeyedDecodingContainer<Key> {
        KeyedDecodingContainer(PairsContainer<Key>(text: text))
    }

    func unkeyedContainer() throws -> any UnkeyedDecodingContainer {
        throw ConfigurationProblem(option: text.option, value: "", reason: "expected key=value")
    }

    func singleValueContainer() throws -> any SingleValueDecodingContainer {
        throw ConfigurationProblem(option: text.option, value: "", reason: "expected key=value")
    }
}

private struct PairsContainer<Key: CodingKey>: KeyedDecodingContainerProtocol {
    let text: OptionText
    var codingPath: [any CodingKey] { [] }
    var allKeys: [Key] { text.pairs.compactMap { Key(stringValue: $0.key) } }

    /// `key=` counts as absent, as in CH.
    private func value(_ key: Key) -> String? {
        let value = text.pairs.first { $0.key == key.stringValue }?.value
        return value == "" ? nil : value
    }

    func contains(_ key: Key) -> Bool { value(key) != nil }
    func decodeNil(forKey key: Key) -> Bool { value(key) == nil }

    func decode<Value: Decodable>(_: Value.Type, forKey key: Key) throws -> Value {
        guard let value = value(key) else {
            throw DecodingError.keyNotFound(
                key, DecodingError.Context(codingPath: [], debugDescription: ""))
        }
        return try OptionValue(option: text.option, key: key.stringValue, text: value)
            .decode(Value.self)
    }

    func nestedContainer<Nested: CodingKey>(
        keyedBy: Nested.Type, forKey key: Key
    ) throws -> KeyedDecodingContainer<Nested> { throw unsupported(key) }
    func nestedUnkeyedContainer(forKey key: Key) throws -> any UnkeyedDecodingContainer {
        throw unsupported(key)
    }
    func superDecoder() throws -> any Decoder { PairsDecoder(text: text) }
    func superDecoder(forKey key: Key) throws -> any Decoder { throw unsupported(key) }

    private func unsupported(_ key: Key) -> ConfigurationProblem {
        ConfigurationProblem(option: text.option, value: key.stringValue, reason: "is no group")
    }
}
