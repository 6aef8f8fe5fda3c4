import VMMBase
import VMMDevices

/// Cloud Hypervisor's command line: argv words in, a configuration out.
package struct CommandLineArguments: Sendable {
    package var configuration = MachineConfiguration()
    package var logLevel = LogLevel.warning
    package var logFile: String?
    package var eventMonitor: EventMonitorSpec?
    package var apiSocket: APISocketSpec?
    package var sandbox = SandboxOptions()
    /// The guest's power-off is not the end of the process.
    package var outlivesGuest = false
    package var wantsHelp = false
    package var wantsVersion = false
    package var wantsDescription = false

    /// What is booted at once; nil where requests decide.
    package var firstMachine: MachineConfiguration? {
        let isEmpty =
            configuration.kernel == nil
            && configuration.options.allSatisfy { $0.option == LandlockRule.option }
        return apiSocket != nil && isEmpty ? nil : configuration
    }

    /// An option and the words that belong to it.
    private struct Occurrence {
        let option: String
        let values: [String]
    }

    /// Options that are no devices: their value in the help, and what they do.
    static let plain: [(option: String, placeholder: String, summary: String)] = [
        ("--kernel", "<file>", "The kernel: an ELF file with a PVH entry, or a bzImage"),
        ("--initramfs", "<file>", "The initial file system in memory"),
        ("--cmdline", "<text>", "The kernel's command line, up to 64 KiB"),
        (
            APISocketSpec.option, "[path=]<file>|fd=<fd>",
            "Serve the API on a socket; without a kernel, wait for vm.create"
        ),
        (
            SandboxOptions.filterOption, "true|false|log|errno",
            "What becomes of a forbidden system call of ours [true: it ends us]"
        ),
        (
            SandboxOptions.filesOption, "[on|off]",
            "Hold the monitor to the files of its machine [on, where the kernel can]"
        ),
        ("--no-shutdown", "", "Stay when the guest switches itself off"),
        ("--api-description", "", "Print the API's OpenAPI document"),
        ("--log-file", "<file>", "Where the log goes, instead of standard error"),
        ("-v", "", "Log more: -v info, -vv debug, -vvv trace"),
        ("--version, -V", "", "Print the version"),
        ("--help, -h", "", "Print this"),
    ]

    /// Parses the words after the program's name; all mistakes at once.
    package init(_ words: [String]) throws(ConfigurationError) {
        var problems: [ConfigurationProblem] = []
        var seen: Set<String> = []
        for occurrence in Self.occurrences(words, &problems) {
            do throws(ConfigurationProblem) {
                try apply(occurrence, &seen)
            } catch {
                problems.append(error)
            }
        }
        guard problems.isEmpty else { throw ConfigurationError(problems) }
        sandbox.rules = configuration.landlockRules
    }

    /// Groups words under the option before them; `--option=value` is split.
    private static func occurrences(
        _ words: [String], _ problems: inout [ConfigurationProblem]
    ) -> [Occurrence] {
        var result: [Occurrence] = []
        for word in words {
            if word.hasPrefix("-"), word != "-" {
                let parts = word.split(
                    separator: "=", maxSplits: 1, omittingEmptySubsequences: false
                ).map(String.init)
                let isAttached = word.hasPrefix("--") && parts.count == 2
                result.append(
                    Occurrence(
                        option: isAttached ? parts[0] : word,
                        values: isAttached ? [parts[1]] : []))
            } else if let last = result.popLast() {
                result.append(Occurrence(option: last.option, values: last.values + [word]))
            } else {
                problems.append(
                    ConfigurationProblem(
                        option: word, value: "", reason: "no option stands before this word"))
            }
        }
        return result
    }

    private mutating func apply(
        _ occurrence: Occurrence, _ seen: inout Set<String>
    ) throws(ConfigurationProblem) {
        let option = occurrence.option
        if let level = Self.verbosity(option) {
            try requireNoValue(occurrence)
            logLevel = max(logLevel, level)
            return
        }
        let section = ConfigurationSection.all.first { $0.option == option }
        if section?.isList != true, !seen.insert(option).inserted {
            throw ConfigurationProblem(option: option, value: "", reason: "is given twice")
        }
        if let section { return try add(section, occurrence) }
        switch option {
        case "--kernel": configuration.kernel = try one(occurrence)
        case "--initramfs": configuration.initramfs = try one(occurrence)
        case "--cmdline": configuration.commandLine = try one(occurrence)
        case "--log-file": logFile = try one(occurrence)
        case APISocketSpec.option:
            let spec = try APISocketSpec(one(occurrence))
            if case .path(let path) = spec.place { sandbox.apiSocket = path }
            apiSocket = spec
        case SandboxOptions.filterOption: try sandbox.setFilter(one(occurrence))
        case SandboxOptions.filesOption: try sandbox.setHeldToFiles(occurrence.values)
        case "--no-shutdown":
            try requireNoValue(occurrence)
            outlivesGuest = true
        case EventMonitorSpec.option:
            eventMonitor = try decode(EventMonitorSpec.self, occurrence, EventMonitorSpec.fields)
        case "--help", "-h": wantsHelp = true
        case "--version", "-V": wantsVersion = true
        case "--api-description": wantsDescription = true
        default:
            throw ConfigurationProblem(
                option: option, value: "", reason: "unknown option; --help lists all")
        }
    }

    /// `-v`, `-vv`, `-vvv`.
    private static func verbosity(_ option: String) -> LogLevel? {
        switch option {
        case "-v": .info
        case "-vv": .debug
        case "-vvv": .trace
        default: nil
        }
    }

    private mutating func add(
        _ section: ConfigurationSection, _ occurrence: Occurrence
    ) throws(ConfigurationProblem) {
        if section.isFlag {
            try requireNoValue(occurrence)
            return try configuration.add(OptionText(option: occurrence.option, pairs: []))
        }
        guard !occurrence.values.isEmpty else {
            throw ConfigurationProblem(
                option: occurrence.option, value: "", reason: "needs a value")
        }
        guard section.isList || occurrence.values.count == 1 else {
            throw ConfigurationProblem(
                option: occurrence.option, value: occurrence.values[1], reason: "takes one value")
        }
        for value in occurrence.values {
            try configuration.add(OptionText(value, option: occurrence.option))
        }
    }

    private func decode<Spec: Decodable>(
        _: Spec.Type, _ occurrence: Occurrence, _ fields: [OptionField]
    ) throws(ConfigurationProblem) -> Spec {
        let text = try OptionText(one(occurrence), option: occurrence.option)
        return try OptionDecoder.decode(Spec.self, from: text, fields: fields)
    }

    private func one(_ occurrence: Occurrence) throws(ConfigurationProblem) -> String {
        guard occurrence.values.count == 1 else {
            throw ConfigurationProblem(
                option: occurrence.option, value: occurrence.values.joined(separator: " "),
                reason: occurrence.values.isEmpty ? "needs a value" : "takes one value")
        }
        return occurrence.values[0]
    }

    private func requireNoValue(_ occurrence: Occurrence) throws(ConfigurationProblem) {
        guard let value = occurrence.values.first else { return }
        throw ConfigurationProblem(
            option: occurrence.option, value: value, reason: "takes no value")
    }
}
