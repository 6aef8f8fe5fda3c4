import VMMBase

/// How `--serial`, `--console` and `--debug-console` spell an endpoint: a bare word, or
/// `file=<path>` and `socket=<path>`, before any other key.
extension ConsoleEndpoint {
    enum Word: String, OptionChoice {
        case off, null, tty, pty, file, socket

        var needsPath: Bool { self == .file || self == .socket }
        var spelling: String { needsPath ? "\(rawValue)=<path>" : rawValue }
    }

    /// Takes the endpoint off `text`, whose first word it is; the rest is left to the spec.
    static func take(
        from text: OptionText, allowed: [Word]
    ) throws(ConfigurationProblem) -> (endpoint: ConsoleEndpoint, rest: OptionText) {
        let first = text.pairs[0]
        guard let word = Word(rawValue: first.key), allowed.contains(word) else {
            let known = allowed.map(\.spelling).joined(separator: ", ")
            throw ConfigurationProblem(
                option: text.option, value: first.key, reason: "expected one of \(known)")
        }
        let path = first.value ?? ""
        guard word.needsPath ? !path.isEmpty : first.value == nil else {
            throw ConfigurationProblem(
                option: text.option, value: first.key,
                reason: word.needsPath ? "needs a path: \(word.spelling)" : "takes no value")
        }
        let rest = OptionText(option: text.option, pairs: Array(text.pairs.dropFirst()))
        return (ConsoleEndpoint(word, path: path), rest)
    }

    private init(_ word: Word, path: String) {
        switch word {
        case .off: self = .off
        case .null: self = .null
        case .tty: self = .tty
        case .pty: self = .pty
        case .file: self = .file(path: path)
        case .socket: self = .socket(path: path)
        }
    }

    /// The words as the help shows them.
    static func field(_ allowed: [Word], default standard: Word) -> OptionField {
        OptionField(
            "", allowed.map(\.spelling).joined(separator: "|"), "where the bytes go",
            default: standard.rawValue, json: ("mode", .endpoint))
    }

    /// The channel of a device that is not switched off; errors name the option.
    func open(option: String) throws(ConfigurationProblem) -> (any ByteChannel)? {
        if self == .off { return nil }
        do throws(EndpointError) {
            return try makeChannel()
        } catch {
            throw ConfigurationProblem(option: option, value: "", reason: error.description)
        }
    }
}
