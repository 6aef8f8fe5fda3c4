import VMMBase
import VMMDevices

/// Cloud Hypervisor's command line: argv words in, a configuration out.
package struct CommandLineArguments: Sendable {
    package var configuration = MachineConfiguration()
    package var logLevel = LogLevel.warning
    package var logFile: String?
    package var wantsHelp = false
    package var wantsVersion = false

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
        let device = DeviceCatalog.all.first { $0.option == option }
        if device?.isRepeatable != true, !seen.insert(option).inserted {
            throw ConfigurationProblem(option: option, value: "", reason: "is given twice")
        }
        if let device {
            try add(device, occurrence)
            return
        }
        switch option {
        case "--kernel": configuration.kernel = try one(occurrence)
        case "--initramfs": configuration.initramfs = try one(occurrence)
        case "--cmdline": configuration.commandLine = try one(occurrence)
        case "--log-file": logFile = try one(occurrence)
        case CPUSpec.option:
            configuration.cpus = try decode(CPUSpec.self, occurrence, CPUSpec.fields)
        case MemorySpec.option:
            configuration.memory = try decode(MemorySpec.self, occurrence, MemorySpec.fields)
        case RateLimitGroup.option:
            configuration.rateLimitGroups = try occurrence.values.map {
                value throws(ConfigurationProblem) in
                let text = try OptionText(value, option: option)
                return try OptionDecoder.decode(
                    RateLimitGroup.self, from: text, fields: RateLimitGroup.fields)
            }
        case "--help", "-h": wantsHelp = true
        case "--version", "-V": wantsVersion = true
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
        _ type: any DeviceSpec.Type, _ occurrence: Occurrence
    ) throws(ConfigurationProblem) {
        guard !occurrence.values.isEmpty else {
            throw ConfigurationProblem(
                option: occurrence.option, value: "", reason: "needs a value")
        }
        guard type.isRepeatable || occurrence.values.count == 1 else {
            throw ConfigurationProblem(
                option: occurrence.option, value: occurrence.values[1], reason: "takes one value")
        }
        for value in occurrence.values {
            let text = try OptionText(value, option: occurrence.option)
            configuration.devices.append(try type.parse(text))
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
