import VMMBase

/// `--memory`.
package struct MemorySpec: Decodable, Sendable {
    package static let option = "--memory"
    package static let fields = [
        OptionField(
            "size", "<bytes>", "RAM, with K, M or G behind it if you like", default: "512M"),
        OptionField("thp", "on|off", "ask the host for transparent huge pages", default: "on"),
    ]

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
        ConfigurationProblem(option: "\(Self.option) size", value: "\(byteCount)", reason: reason)
    }
}
