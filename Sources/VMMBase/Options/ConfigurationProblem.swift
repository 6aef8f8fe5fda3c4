/// One mistake in what the user asked for: which option, which value, and what would be right.
package struct ConfigurationProblem: Error, Hashable, Sendable, CustomStringConvertible {
    /// The option as the user spells it, such as `--memory size`.
    package let option: String
    package let value: String
    /// What is wrong, or what is allowed; completes the sentence.
    package let reason: String
    /// Of an option that is given several times, which one, counted from 0.
    package var index: Int?
    /// Two things want to be the same one.
    package var isConflict = false

    package init(option: String, value: String, reason: String) {
        self.option = option
        self.value = value
        self.reason = reason
    }

    /// The same mistake, in the occurrence `index` of its option.
    package func at(_ index: Int) -> ConfigurationProblem {
        var problem = self
        problem.index = index
        return problem
    }

    package var description: String {
        value.isEmpty ? "\(option): \(reason)" : "\(option) '\(value)': \(reason)"
    }
}

/// All mistakes of one configuration, found in one go.
package struct ConfigurationError: Error, Sendable, CustomStringConvertible {
    package let problems: [ConfigurationProblem]

    package init(_ problems: [ConfigurationProblem]) {
        self.problems = problems
    }

    package var description: String {
        problems.map(\.description).joined(separator: "\n")
    }
}
