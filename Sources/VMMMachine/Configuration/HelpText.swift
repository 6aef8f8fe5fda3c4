import VMMBase

/// The text of `--help`, made from the same specs that the options are decoded by.
package enum HelpText {
    package static func render(program: String) -> String {
        var lines = [
            "\(program): boots a Linux virtual machine on KVM",
            "",
            "Usage: \(program) --kernel <file> [options]",
            "",
            "Options:",
        ]
        for (option, placeholder, summary) in CommandLineArguments.plain {
            lines.append(entry(option, placeholder, summary))
        }
        for section in ConfigurationSection.all {
            lines += group(section.option, section.summary, section.isList, section.fields)
        }
        lines += group(
            EventMonitorSpec.option, EventMonitorSpec.summary, false, EventMonitorSpec.fields)
        lines += [
            "",
            "A value is key=value,key=value. Sizes may end in K, M or G. Options marked * may be",
            "given several times, or with several values.",
        ]
        return lines.joined(separator: "\n") + "\n"
    }

    private static func group(
        _ option: String, _ summary: String, _ isRepeatable: Bool, _ fields: [OptionField]
    ) -> [String] {
        [entry(option + (isRepeatable ? " *" : ""), "", summary)]
            + fields.filter { !$0.isHidden }.map { field in
                let key =
                    field.key.isEmpty ? field.placeholder : "\(field.key)=\(field.placeholder)"
                let standard = field.defaultValue.map { " [\($0)]" } ?? ""
                return "      " + pad(key, 34) + field.summary + standard
            }
    }

    private static func entry(_ option: String, _ placeholder: String, _ summary: String) -> String
    {
        "  " + pad(placeholder.isEmpty ? option : "\(option) \(placeholder)", 38) + summary
    }

    private static func pad(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(2, width - text.count))
    }
}
