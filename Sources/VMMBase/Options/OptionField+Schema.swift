// What a value must be, in the words of OpenAPI 3.0's schemas.

extension OptionText {
    /// The schema of the JSON object that `init(_:option:fields:path:problems:)` reads. Members
    /// that no field names are allowed, but where only rates are told.
    package static func schema(fields: [OptionField], summary: String) -> JSONValue {
        var object: JSONValue = ["type": "object", "description": .string(summary)]
        for field in fields {
            if case .endpoint = field.form {
                object.addEndpoint(field)
            } else {
                object.add(field.schema, field.path[...], isRequired: field.isRequired)
            }
        }
        return object
    }
}

extension OptionField {
    /// Words that the placeholder lists: `pci|mmio`.
    private var words: [String] {
        let isList = placeholder.contains("|") && !placeholder.contains { "<[".contains($0) }
        return isList ? placeholder.split(separator: "|").map(String.init) : []
    }

    /// The schema of the value; null says nothing, unless the value is needed.
    package var schema: JSONValue {
        var schema = shape
        if isRequired, case .text = form {
            // No text is as good as none at all.
            schema.set(1, at: ["minLength"])
        }
        if !isRequired { schema.set(true, at: ["nullable"]) }
        schema.set(.string(summary), at: ["description"])
        // Of a text, a default is often described; and words may go with some other word alone.
        let isValue: Bool
        if case .text = form {
            isValue = defaultValue?.hasPrefix("/") ?? false
        } else {
            isValue = true
        }
        if isValue, let value = defaultValue.flatMap({ json(of: $0) }) {
            schema.set(value, at: ["default"])
        }
        return schema
    }

    private var shape: JSONValue {
        switch form {
        case .text:
            words.isEmpty
                ? ["type": "string"]
                : ["type": "string", "enum": .array(words.map { .string($0) })]
        case .flag: ["type": "boolean"]
        case .number: .wholeNumber(range)
        case .port: .wholeNumber(0...UInt64(UInt16.max))
        case .choice(let words):
            ["type": "string", "enum": .array(words.map { .string($0.json) })]
        case .list(let ofNumbers):
            ["type": "array", "items": ofNumbers ? .wholeNumber(range) : ["type": "string"]]
        case .descriptors:
            // By number they mean nothing to another process.
            ["type": "array", "items": ["type": "integer"], "maxItems": 0]
        case .map(let index, let list):
            [
                "type": "array",
                "items": .object([
                    .init("type", "object"),
                    .init("required", [.string(index), .string(list)]),
                    .init(
                        "properties",
                        .object([
                            .init(index, .wholeNumber(range)),
                            .init(
                                list,
                                ["type": "array", "minItems": 1, "items": .wholeNumber(range)]),
                        ])),
                ]),
            ]
        case .endpoint: [:]
        }
    }
}

extension JSONValue {
    /// The schema of a whole number that is not negative.
    package static func wholeNumber(_ range: ClosedRange<UInt64>) -> JSONValue {
        [
            "type": "integer", "format": "int64", "minimum": .number("\(range.lowerBound)"),
            "maximum": .number("\(range.upperBound)"),
        ]
    }

    /// Adds the schema of what is at `path` to the schema of an object.
    fileprivate mutating func add(
        _ value: JSONValue, _ path: ArraySlice<String>, isRequired: Bool
    ) {
        guard let name = path.first else { return }
        let place = ["properties", name]
        guard path.count == 1 else {
            var inner: JSONValue =
                self["properties"]?[name]
                ?? ["type": "object", "nullable": true, "additionalProperties": false]
            inner.add(value, path.dropFirst(), isRequired: isRequired)
            return set(inner, at: place[...])
        }
        set(value, at: place[...])
        guard isRequired else { return }
        var names: [JSONValue] = [.string(name)]
        if case .array(let others)? = self["required"] { names = others + names }
        set(.array(names), at: ["required"])
    }

    /// A mode, and the paths that some modes need.
    fileprivate mutating func addEndpoint(_ field: OptionField) {
        let choices = field.placeholder.split(separator: "|").map { $0.split(separator: "=") }
        let modes = choices.map {
            JSONValue.string($0[0].prefix(1).uppercased() + $0[0].dropFirst())
        }
        let standard = field.defaultValue.map { $0.prefix(1).uppercased() + $0.dropFirst() }
        add(
            [
                "type": "string", "enum": .array(modes), "nullable": true,
                "description": .string(field.summary), "default": .string(standard ?? "Off"),
            ], ["mode"], isRequired: false)
        // Words with a value behind them, `file=<path>`, are modes that need it.
        let plain = zip(choices, modes).filter { $0.0.count == 1 }.map(\.1)
        var ways: [JSONValue] = [
            [
                "properties": [
                    "mode": ["type": "string", "nullable": true, "enum": .array(plain + [.null])]
                ]
            ]
        ]
        for (choice, mode) in zip(choices, modes) where choice.count > 1 {
            ways.append(
                .object([
                    .init("required", ["mode", .string(String(choice[0]))]),
                    .init(
                        "properties",
                        .object([
                            .init("mode", ["type": "string", "enum": [mode]]),
                            .init(String(choice[0]), ["type": "string", "minLength": 1]),
                        ])),
                ]))
            add(
                [
                    "type": "string", "nullable": true,
                    "description": "the path, when that is the mode",
                ], [String(choice[0])], isRequired: false)
        }
        set(.array(ways), at: ["anyOf"])
    }
}
