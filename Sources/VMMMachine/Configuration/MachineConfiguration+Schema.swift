import VMMBase
import VMMDevices

extension MachineConfiguration {
    /// The schema of a whole machine, the first, and of its parts, by the names that OpenAPI
    /// refers to them with.
    package static var schemas: [JSONValue.Member] {
        let sections = ConfigurationSection.all
        var properties = [JSONValue.Member("payload", reference("PayloadConfig"))]
        for section in sections {
            let one: JSONValue =
                section.isFlag ? ["type": "boolean"] : reference(section.schemaName)
            properties.append(
                .init(section.json, section.isList ? ["type": "array", "items": one] : one))
        }
        properties.append(
            .init(
                "landlock_enable",
                [
                    "type": "boolean",
                    "description": "Hold the monitor to the machine's files; true by default",
                ]))
        let machine: JSONValue = [
            "type": "object", "description": "A virtual machine", "required": ["payload"],
            "properties": .object(properties),
        ]
        return [.init("VmConfig", machine), .init("PayloadConfig", payloadSchema)]
            + sections.filter { !$0.isFlag }.map {
                .init(
                    $0.schemaName, OptionText.schema(fields: $0.fields, summary: $0.summary))
            }
    }

    /// How one schema of an OpenAPI document refers to another.
    package static func reference(_ name: String) -> JSONValue {
        ["$ref": "#/components/schemas/\(name)"]
    }

    private static var payloadSchema: JSONValue {
        let texts = ConfigurationSection.payload.map {
            JSONValue.Member($0.json, ["type": "string", "nullable": true])
        }
        return [
            "type": "object", "description": "What the guest boots",
            "properties": .object(texts),
        ]
    }
}

extension ConfigurationSection {
    /// `--rate-limit-group` is `RateLimitGroupConfig`.
    fileprivate var schemaName: String {
        option.split(separator: "-").map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined()
            + "Config"
    }
}
