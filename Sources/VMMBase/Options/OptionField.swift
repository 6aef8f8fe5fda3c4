/// One `key=value` that an option accepts: the help's line, the list of keys that exist, and where
/// the value stands in the option's JSON.
package struct OptionField: Sendable {
    package let key: String
    /// What stands for the value in the help, such as `<bytes>` or `on|off`.
    package let placeholder: String
    package let summary: String
    /// What holds when the key is absent, as the user would write it.
    package let defaultValue: String?
    /// Not for users, and not in the help.
    package let isHidden: Bool
    /// The names on the way to the value in JSON, with dots between them.
    private let jsonPath: String
    /// The names on the way to the value in JSON.
    package var path: [String] { jsonPath.split(separator: ".").map(String.init) }
    package let form: OptionForm
    /// In JSON, the object that the value stands in makes no sense without it.
    package private(set) var isRequired = false
    /// What a number may be.
    package private(set) var range: ClosedRange<UInt64> = 0...UInt64.max

    /// `json`: where the value is in JSON, with dots between names; the key itself if nothing is
    /// said. `form`: how it is written there; follows from the placeholder if nothing is said.
    package init(
        _ key: String, _ placeholder: String, _ summary: String,
        default defaultValue: String? = nil, isHidden: Bool = false,
        json: (path: String?, form: OptionForm?) = (nil, nil)
    ) {
        self.key = key
        self.placeholder = placeholder
        self.summary = summary
        self.defaultValue = defaultValue
        self.isHidden = isHidden
        jsonPath = json.path ?? key
        form = json.form ?? OptionForm(placeholder: placeholder)
    }

    /// The same field, which cannot be left out.
    package var required: OptionField {
        var field = self
        field.isRequired = true
        return field
    }

    /// The same field, with the numbers that are allowed. The spec that decodes it refuses others.
    package func within(_ range: ClosedRange<some UnsignedInteger>) -> OptionField {
        var field = self
        field.range = UInt64(range.lowerBound)...UInt64(range.upperBound)
        return field
    }
}

/// How a value is written in JSON that is text on the command line.
package enum OptionForm: Sendable {
    case text
    /// `on` and `off` are true and false.
    case flag
    /// A whole number that is not negative. On the command line it may end in K, M or G.
    case number
    /// One of a few words, which are spelled otherwise in JSON. One that is the field's default is
    /// as good as absent.
    case choice([(option: String, json: String)])
    /// `[a,b]`.
    case list(ofNumbers: Bool)
    /// `0xe9` is 233.
    case port
    /// `[0@[1,2]]` is `[{"index":0,"list":[1,2]}]`, with these names.
    case map(index: String, list: String)
    /// The bare word before all keys: a mode, and for some modes a path (`file=/a`) that stands
    /// under the word's own name.
    case endpoint
    /// Numbers of the process that says them, of no use to any other: in JSON they are refused.
    case descriptors

    /// What the placeholder says of the value.
    init(placeholder: String) {
        switch placeholder {
        case "on|off": self = .flag
        case "<n>", "<bytes>", "<ms>": self = .number
        case "0x<port>": self = .port
        case _ where placeholder.hasPrefix("[<fd>"): self = .descriptors
        case _ where placeholder.hasPrefix("["): self = .list(ofNumbers: false)
        default: self = .text
        }
    }
}
