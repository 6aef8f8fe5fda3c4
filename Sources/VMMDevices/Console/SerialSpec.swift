import VMMBase
import VMMHost
import VMMVirtIO

/// `--serial`: the 16550 serial port at 0x3f8, ttyS0 in the guest.
package struct SerialSpec: DeviceSpec {
    package static let word = "serial"
    package static let summary = "The serial port, ttyS0 in the guest"
    private static let modes: [CharacterMode.Kind] = [.off, .null, .tty, .pty, .file, .socket]
    package static let fields = [CharacterMode.field(modes, default: .null)]
    package static let standard: SerialSpec? = SerialSpec(mode: CharacterMode(.null))

    package let mode: CharacterMode
    package var usesTerminal: Bool { mode.kind == .tty }

    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> SerialSpec {
        let (mode, rest) = try CharacterMode.take(from: text, allowed: modes)
        try rest.requireNothingMore()
        return SerialSpec(mode: mode)
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        guard let channel = try mode.open(context, option: Self.option) else { return .none }
        return .serial(channel)
    }
}
