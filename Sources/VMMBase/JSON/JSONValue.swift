/// A JSON value (RFC 8259). The members of an object keep their order.
package enum JSONValue: Equatable, Sendable {
    case null
    case bool(Bool)
    /// As the text spells it: a 64-bit number must not pass through a floating-point one.
    case number(String)
    case string(String)
    case array([JSONValue])
    case object([Member])

    package struct Member: Equatable, Sendable {
        package let name: String
        package let value: JSONValue

        package init(_ name: String, _ value: JSONValue) {
            self.name = name
            self.value = value
        }
    }

    /// What kind of value it is, for messages.
    package var kind: String {
        switch self {
        case .null: "null"
        case .bool: "true or false"
        case .number: "a number"
        case .string: "a string"
        case .array: "a list"
        case .object: "an object"
        }
    }

    /// The first member of that name; nil where there is none, and of what is no object.
    package subscript(_ name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        // By bytes: a name that anybody made up may be long, and normalised when it is compared.
        return members.first { $0.name.utf8.elementsEqual(name.utf8) }?.value
    }
}

/// What is wrong with a JSON text, or with a value that was to be decoded from it.
package struct JSONError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Where: `disks[0].path`; empty for the whole.
    package let path: String
    /// What is wrong, or what is expected; completes the sentence.
    package let reason: String

    package init(path: String = "", reason: String) {
        self.path = path
        self.reason = reason
    }

    package var description: String { path.isEmpty ? reason : "\(path): \(reason)" }

    /// The path of a member of what is at `path`.
    package static func path(_ path: String, _ name: String) -> String {
        path.isEmpty ? name : "\(path).\(name)"
    }
}
