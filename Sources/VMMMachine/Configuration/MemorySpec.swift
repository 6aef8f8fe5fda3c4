import VMMBase

/// `--memory`.
package struct MemorySpec: Decodable, Sendable {
    package static let option = "--memory"
    package static var fields: [OptionField] {
        [
            OptionField(
                "size", "<bytes>", "RAM, with K, M or G behind it if you like", default: "512M"),
            OptionField("thp", "on|off", "ask the host for transparent huge pages", default: "on"),
        ]
    }

    package static let standardSize: UInt64 = 512 << 20

    package var size: UInt64? = nil
    package var usesHugePages: Bool? = nil

    package init() {}

    private enum CodingKeys: String, CodingKey {
        case size
        case usesHugePages = "thp"
    }

    /// In bytes.
    package var byteCount: UInt64 { size ?? Self.standardSize }

    func problem(_ reason: String) -> ConfigurationProblem {
        Self.problem(byteCount, reason)
    }

    static func problem(_ byteCount: UInt64, _ reason: String) -> ConfigurationProblem {
        ConfigurationProblem(option: "\(option) size", value: spelled(byteCount), reason: reason)
    }

    /// A size as users write it, in the largest unit of which it is a whole number.
    static func spelled(_ byteCount: UInt64) -> String {
        for (unit, shift) in [("G", 30), ("M", 20), ("K", 10)] {
            let count = byteCount >> UInt64(shift)
            if count > 0, count << UInt64(shift) == byteCount { return "\(count)\(unit)" }
        }
        return "\(byteCount)"
    }
}
