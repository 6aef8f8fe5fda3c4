import VMMBase
import VMMHost
import VMMVirtIO

/// `--console`: a virtio console, hvc0 in the guest.
package struct ConsoleSpec: DeviceSpec {
    package static let word = "console"
    package static let summary = "The virtio console, hvc0 in the guest"
    private static let modes: [ConsoleEndpoint.Word] = [.off, .null, .tty, .pty, .file]
    package static let fields = [
        ConsoleEndpoint.field(modes, default: .tty),
        OptionField("id", "<name>", "the device's name", default: "__console"),
        OptionField(
            "pci_device_id", "<n>", "device number on the PCI bus", default: "the next free"),
    ]
    package static let standard: ConsoleSpec? = ConsoleSpec(endpoint: .tty)

    package let endpoint: ConsoleEndpoint
    package let id: String?
    package let pciDevice: UInt8?
    package var usesTerminal: Bool { endpoint == .tty }

    init(endpoint: ConsoleEndpoint, id: String? = nil, pciDevice: UInt8? = nil) {
        self.endpoint = endpoint
        self.id = id
        self.pciDevice = pciDevice
    }

    /// What may follow the mode.
    private struct Placement: Decodable {
        let id: String?
        let pci_device_id: UInt8?
    }

    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> ConsoleSpec {
        let (endpoint, rest) = try ConsoleEndpoint.take(from: text, allowed: modes)
        let placement = try OptionDecoder.decode(Placement.self, from: rest, fields: fields)
        return ConsoleSpec(endpoint: endpoint, id: placement.id, pciDevice: placement.pci_device_id)
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        guard let channel = try endpoint.open(option: Self.option) else { return .none }
        let console = try VirtIOConsole(id: context.id, channel: channel)
        try console.startChannel(on: context.loop)
        return .virtIO(console, channel: channel)
    }
}
