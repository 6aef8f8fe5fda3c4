import VMMBase
import VMMHost
import VMMSandbox
import VMMVirtIO

/// `--console`: a virtio console, hvc0 in the guest.
package struct ConsoleSpec: DeviceSpec {
    package static let word = "console"
    package static let summary = "The virtio console, hvc0 in the guest"
    private static let modes: [ConsoleEndpoint.Word] = [.off, .null, .tty, .pty, .file, .socket]
    package static var fields: [OptionField] {
        [
            ConsoleEndpoint.field(modes, default: .tty),
            OptionField("id", "<name>", "the device's name", default: "__console"),
        ] + PlaceOptions.fields
    }
    package static let standard: ConsoleSpec? = ConsoleSpec(endpoint: .tty)

    package static var sandbox: SandboxNeeds { ConsoleEndpoint.sandbox }

    package let endpoint: ConsoleEndpoint
    package let id: String?
    package let place: PlaceOptions
    package var usesTerminal: Bool { endpoint == .tty }
    package var sandbox: SandboxNeeds { endpoint.sandbox }
    package var files: [SandboxFile] { endpoint.files }

    init(endpoint: ConsoleEndpoint, id: String? = nil, place: PlaceOptions = PlaceOptions()) {
        self.endpoint = endpoint
        self.id = id
        self.place = place
    }

    /// What may follow the mode.
    private struct Rest: Decodable {
        let id: String?
        let place: PlaceOptions

        private enum CodingKeys: CodingKey {
            case id
        }

        init(from decoder: any Decoder) throws {
            let keys = try decoder.container(keyedBy: CodingKeys.self)
            id = try keys.decodeIfPresent(String.self, forKey: .id)
            place = try PlaceOptions(from: decoder)
        }
    }

    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> ConsoleSpec {
        let (endpoint, rest) = try ConsoleEndpoint.take(from: text, allowed: modes)
        let options = try OptionDecoder.decode(Rest.self, from: rest, fields: fields)
        return ConsoleSpec(endpoint: endpoint, id: options.id, place: options.place)
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        guard let channel = try endpoint.open(option: Self.option) else { return .none }
        let console = try VirtIOConsole(id: context.id, channel: channel)
        try console.startChannel(on: context.loop)
        return .virtIO(console, channel: channel)
    }
}
