import VMMBase

/// Where the bytes of a console go: `off`, `null`, `tty`, `pty`, `file=<path>`, `socket=<path>`.
package struct CharacterMode: Decodable, Equatable, Sendable {
    package enum Kind: String, OptionChoice, Decodable, Sendable {
        case off, null, tty, pty, file, socket
    }

    package let kind: Kind
    /// The file's or socket's path; empty for the others.
    package let path: String

    package init(_ kind: Kind, path: String = "") {
        self.kind = kind
        self.path = path
    }

    /// Takes the mode off `text`, whose first word it is; the rest is left to the spec.
    static func take(
        from text: OptionText, allowed: [Kind]
    ) throws(ConfigurationProblem) -> (mode: CharacterMode, rest: OptionText) {
        let known = allowed.map { $0 == .file || $0 == .socket ? "\($0)=<path>" : "\($0)" }
            .joined(separator: ", ")
        guard let first = text.pairs.first, let kind = Kind(rawValue: first.key),
            allowed.contains(kind)
        else {
            let value = text.pairs.first?.key ?? ""
            throw ConfigurationProblem(
                option: text.option, value: value, reason: "expected one of \(known)")
        }
        let needsPath = kind == .file || kind == .socket
        guard needsPath == (first.value?.isEmpty == false) else {
            throw ConfigurationProblem(
                option: text.option, value: first.key,
                reason: needsPath ? "needs a path: \(kind)=<path>" : "takes no value")
        }
        let mode = CharacterMode(kind, path: first.value ?? "")
        return (mode, OptionText(option: text.option, pairs: Array(text.pairs.dropFirst())))
    }

    /// The modes as the help shows them.
    static func field(_ allowed: [Kind], default standard: Kind) -> OptionField {
        let words = allowed.map { $0 == .file || $0 == .socket ? "\($0)=<path>" : "\($0)" }
        return OptionField(
            "", words.joined(separator: "|"), "where the bytes go", default: "\(standard)")
    }
}
