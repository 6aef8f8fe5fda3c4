import VMMBase
import VMMHost
import VMMVirtIO

/// `--console`: a virtio console, hvc0 in the guest.
package struct ConsoleSpec: DeviceSpec {
    package static let word = "console"
    package static let summary = "The virtio console, hvc0 in the guest"
    private static let modes: [CharacterMode.Kind] = [.off, .null, .tty, .pty, .file]
    package static let fields = [
        CharacterMode.field(modes, default: .tty),
        OptionField("id", "<name>", "the device's name", default: "__console"),
        OptionField("pci_device_id", "<n>", "device number on the PCI bus", default: "the next free"),
    ]
    package static let standard: ConsoleSpec? = ConsoleSpec(mode: CharacterMode(.tty))

    package let mode: CharacterMode
    package let id: String?
    package let pciDevice: UInt8?
    package var usesTerminal: Bool { mode.kind == .tty }

    init(mode: CharacterMode, id: String? = nil, pciDevice: UInt8? = nil) {
        self.mode = mode
        self.id = id
        self.pciDevice = pciDevice
    }

    /// What may follow the mode.
    private struct Placement: Decodable {
        let id: String?
        let pci_device_id: UInt8?
    }

    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> ConsoleSpec {
        let (mode, rest) = try CharacterMode.take(from: text, allowed: modes)
        let placement = try OptionDecoder.decode(Placement.self, from: rest, fields: fields)
        return ConsoleSpec(mode: mode, id: placement.id, pciDevice: placement.pci_device_id)
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        guard let channel = try mode.open(context, option: Self.option) else { return .none }
        return .virtIO(VirtIOConsole(id: context.id, channel: channel, clock: context.clock))
    }
}
