/// One `key=value` that an option accepts: the help's line, and the list of keys that exist.
package struct OptionField: Sendable {
    package let key: String
    /// What stands for the value in the help, such as `<bytes>` or `on|off`.
    package let placeholder: String
    package let summary: String
    /// What holds when the key is absent, as the user would write it.
    package let defaultValue: String?
    /// A bare word stands for this field: `--serial tty` instead of `--serial mode=tty`.
    package let isHidden: Bool

    package init(
        _ key: String, _ placeholder: String, _ summary: String,
        default defaultValue: String? = nil,
        isHidden: Bool = false
    ) {
        self.key = key
        self.placeholder = placeholder
        self.summary = summary
        self.defaultValue = defaultValue
        self.isHidden = isHidden
    }
}
