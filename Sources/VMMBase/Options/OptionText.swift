/// The pairs of one option value, `key=value,key=value`. Commas inside `[...]` or `"..."` do not
/// split; quotes are dropped and `""` inside them is one quote (CH's grammar).
package struct OptionText: Sendable {
    /// A word without `=` has no value.
    package struct Pair: Hashable, Sendable {
        package let key: String
        package let value: String?

        package init(key: String, value: String?) {
            self.key = key
            self.value = value
        }
    }

    /// The option's name on the command line, with its dashes.
    package let option: String
    package private(set) var pairs: [Pair]

    package init(_ text: String, option: String) throws(ConfigurationProblem) {
        self.option = option
        var pairs: [Pair] = []
        for item in try Self.split(text, at: ",", option: option) {
            let parts = try Self.split(item, at: "=", option: option, limit: 2)
            let key = parts[0].filter { $0 != "\"" }
            guard !key.isEmpty else {
                throw ConfigurationProblem(
                    option: option, value: text, reason: "expected key=value, separated by commas")
            }
            guard !pairs.contains(where: { $0.key == key }) else {
                throw ConfigurationProblem(
                    option: option, value: text, reason: "the key '\(key)' is given twice")
            }
            pairs.append(Pair(key: key, value: parts.count > 1 ? Self.unquote(parts[1]) : nil))
        }
        self.pairs = pairs
    }

    package init(option: String, pairs: [Pair]) {
        self.option = option
        self.pairs = pairs
    }

    /// Adds a key, unless the user gave it a value.
    package mutating func setDefault(_ key: String, _ value: String) {
        if let pair = pairs.first(where: { $0.key == key }), pair.value != "" { return }
        pairs.removeAll { $0.key == key }
        pairs.append(Pair(key: key, value: value))
    }

    /// Refuses what is left after all that was understood has been taken.
    package func requireNothingMore() throws(ConfigurationProblem) {
        guard let pair = pairs.first else { return }
        throw ConfigurationProblem(
            option: option, value: pair.key, reason: "unknown key; nothing more goes here")
    }

    /// Splits at top level only; `limit` pieces at most.
    private static func split(
        _ text: String, at separator: Character, option: String, limit: Int = .max
    ) throws(ConfigurationProblem) -> [String] {
        var pieces: [String] = [""]
        var depth = 0
        var isQuoted = false
        for character in text {
            switch character {
            case "\"": isQuoted.toggle()
            case "[" where !isQuoted: depth += 1
            case "]" where !isQuoted: depth -= 1
            default: break
            }
            if character == separator, depth == 0, !isQuoted, pieces.count < limit {
                pieces.append("")
            } else {
                pieces[pieces.count - 1].append(character)
            }
            if depth < 0 { break }
        }
        guard depth == 0, !isQuoted else {
            throw ConfigurationProblem(
                option: option, value: text, reason: "brackets or quotes do not match")
        }
        return pieces
    }

    private static func unquote(_ text: String) -> String {
        guard text.contains("\"") else { return text }
        var result = ""
        var previousWasQuote = false
        var isInside = false
        for character in text {
            if character == "\"" {
                if previousWasQuote, !isInside { result.append("\"") }
                isInside.toggle()
                previousWasQuote = !isInside
            } else {
                result.append(character)
                previousWasQuote = false
            }
        }
        return result
    }
}
