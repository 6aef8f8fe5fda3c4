// The same option in JSON. One table of fields serves both, and what is decoded is always the
// text, so that there is one decoder with one set of rules.

extension OptionText {
    /// An option as its JSON object says it. Members that no field names are left alone.
    /// `path`: where the object stands; mistakes go to `problems`.
    package init(
        _ json: JSONValue, option: String, fields: [OptionField], path: String,
        problems: inout [JSONError]
    ) {
        var pairs: [Pair] = []
        if case .object = json {
            for field in fields {
                do throws(JSONError) {
                    if let pair = try Self.pair(field, in: json, path) { pairs.append(pair) }
                } catch {
                    problems.append(error)
                }
            }
        } else {
            problems.append(
                JSONError(path: path, reason: "expected an object, found \(json.kind)"))
        }
        self.init(option: option, pairs: pairs)
    }

    private static func pair(
        _ field: OptionField, in json: JSONValue, _ path: String
    ) throws(JSONError) -> Pair? {
        if case .endpoint = field.form { return try endpoint(json, path, field.defaultValue) }
        var value = json
        var place = path
        for name in field.path {
            guard let member = value[name], member != .null else { return nil }
            place = JSONError.path(place, name)
            value = member
        }
        return try field.text(of: value, place).map { Pair(key: field.key, value: $0) }
    }

    private static func endpoint(
        _ json: JSONValue, _ path: String, _ standard: String?
    ) throws(JSONError) -> Pair {
        guard let mode = json["mode"], mode != .null else {
            return Pair(key: standard ?? "off", value: nil)
        }
        let word = try mode.string(JSONError.path(path, "mode")).lowercased()
        guard let file = json[word], file != .null else { return Pair(key: word, value: nil) }
        return Pair(key: word, value: try file.string(JSONError.path(path, word)))
    }

    /// The option as a JSON object, with the defaults of what is absent where they are values.
    package func json(fields: [OptionField]) -> JSONValue {
        var object = JSONValue.object([])
        for field in fields {
            if case .endpoint = field.form {
                object = endpoint(default: field.defaultValue)
            } else if let value = json(of: field, among: fields) {
                object.set(value, at: field.path[...])
            }
        }
        return object
    }

    private func json(of field: OptionField, among fields: [OptionField]) -> JSONValue? {
        if let text = pairs.first(where: { $0.key == field.key })?.value {
            return field.json(of: text)
        }
        guard let standard = field.defaultValue else { return nil }
        // A default may be what another field says.
        if case .number = field.form, let other = fields.first(where: { $0.key == standard }) {
            return json(of: other, among: fields)
        }
        if case .text = field.form { return standard.hasPrefix("/") ? .string(standard) : nil }
        return field.json(of: standard)
    }

    /// The modes are spelled with a capital letter in JSON.
    private func endpoint(default standard: String?) -> JSONValue {
        let pair = pairs.first ?? Pair(key: standard ?? "off", value: nil)
        let mode = pair.key.prefix(1).uppercased() + pair.key.dropFirst()
        let path = pair.value.map { [JSONValue.Member(pair.key, .string($0))] } ?? []
        return .object([.init("mode", .string(mode))] + path)
    }
}

extension OptionField {
    /// The text for a value; nil where it says nothing.
    func text(of value: JSONValue, _ place: String) throws(JSONError) -> String? {
        switch form {
        case .text: return try value.string(place)
        case .flag:
            guard case .bool(let flag) = value else {
                throw value.mismatch("true or false", place)
            }
            return flag ? "on" : "off"
        case .number: return try value.digits(place)
        case .port:
            let digits = try value.digits(place)
            return "0x" + String(UInt64(digits) ?? .max, radix: 16)
        case .choice(let words):
            let text = try value.string(place)
            guard let word = words.first(where: { $0.json == text })?.option else {
                let known = words.map(\.json).joined(separator: ", ")
                throw JSONError(path: place, reason: "expected one of \(known), found \(text)")
            }
            return word == defaultValue ? nil : word
        case .list(let ofNumbers):
            var items: [String] = []
            for (index, item) in try value.elements(place).enumerated() {
                let place = "\(place)[\(index)]"
                items.append(try ofNumbers ? item.digits(place) : item.string(place))
            }
            return "[" + items.joined(separator: ",") + "]"
        case .map(let index, let list):
            return try Self.map(value, index, list, place)
        case .descriptors:
            guard try value.elements(place).isEmpty else {
                throw JSONError(
                    path: place, reason: "numbers of descriptors mean nothing to another process")
            }
            return nil
        case .endpoint: return nil
        }
    }

    private static func map(
        _ value: JSONValue, _ index: String, _ list: String, _ place: String
    ) throws(JSONError) -> String? {
        var entries: [String] = []
        for (position, entry) in try value.elements(place).enumerated() {
            let place = "\(place)[\(position)]"
            var numbers: [String] = []
            let listPlace = JSONError.path(place, list)
            for number in try (entry[list] ?? .null).elements(listPlace) {
                numbers.append(try number.digits(listPlace))
            }
            let key = try (entry[index] ?? .null).digits(JSONError.path(place, index))
            entries.append("\(key)@[\(numbers.joined(separator: ","))]")
        }
        return entries.isEmpty ? nil : "[" + entries.joined(separator: ",") + "]"
    }

    /// The JSON of a text; nil where it is no such value, as the words for some defaults are not.
    func json(of text: String) -> JSONValue? {
        switch form {
        case .text: return .string(text)
        case .flag: return Self.flags[text.lowercased()].map { .bool($0) }
        case .number: return OptionValue.size(text).map { .number("\($0)") }
        case .port:
            guard text.hasPrefix("0x") else { return nil }
            return UInt64(text.dropFirst(2), radix: 16).map { .number("\($0)") }
        case .choice(let words):
            return words.first { $0.option == text }.map { .string($0.json) }
        case .list(let ofNumbers):
            return .array(Self.items(text).map { ofNumbers ? .number($0) : .string($0) })
        case .descriptors: return .array(Self.items(text).map { .number($0) })
        case .map(let index, let list):
            return .array(
                Self.entries(text).map { entry in
                    .object([
                        .init(index, .number(entry.key)),
                        .init(list, .array(entry.numbers.map { .number("\($0)") })),
                    ])
                })
        case .endpoint: return nil
        }
    }

    private static let flags = ["on": true, "true": true, "off": false, "false": false]

    private static func items(_ text: String) -> [String] {
        text.dropFirst().dropLast().split(separator: ",").map(String.init)
    }

    /// `[0@[1,3-5]]`, which the field's own decoder has found good.
    private static func entries(_ text: String) -> [(key: String, numbers: [Int])] {
        text.dropFirst().dropLast(2).split(separator: "]").compactMap { entry in
            let parts = entry.drop { $0 == "," }.split(separator: "@")
            guard parts.count == 2 else { return nil }
            let numbers = parts[1].dropFirst().split(separator: ",").flatMap { item in
                let ends = item.split(separator: "-").compactMap { Int($0) }
                guard let first = ends.first, let last = ends.last, first <= last else {
                    return [Int]()
                }
                return Array(first...last)
            }
            return (String(parts[0]), numbers)
        }
    }
}

extension JSONValue {
    /// The mistake of a value that is of another kind.
    package func mismatch(_ what: String, _ place: String) -> JSONError {
        JSONError(path: place, reason: "expected \(what), found \(kind)")
    }

    func string(_ place: String) throws(JSONError) -> String {
        guard case .string(let text) = self else { throw mismatch("a string", place) }
        return text
    }

    func elements(_ place: String) throws(JSONError) -> [JSONValue] {
        guard case .array(let values) = self else { throw mismatch("a list", place) }
        return values
    }

    /// A whole number of 64 bits that is not negative.
    func digits(_ place: String) throws(JSONError) -> String {
        guard case .number(let text) = self else { throw mismatch("a number", place) }
        guard UInt64(text) != nil else {
            throw JSONError(
                path: place, reason: "expected a whole number from 0 on, found \(text)")
        }
        return text
    }

    /// Puts a value under names inside each other; for objects.
    package mutating func set(_ value: JSONValue, at path: ArraySlice<String>) {
        guard let name = path.first, case .object(var members) = self else { return }
        var inner = value
        let position = members.firstIndex { $0.name == name }
        if path.count > 1 {
            inner = position.map { members[$0].value } ?? .object([])
            inner.set(value, at: path.dropFirst())
        }
        if let position {
            members[position] = Member(name, inner)
        } else {
            members.append(Member(name, inner))
        }
        self = .object(members)
    }
}
