import VMMBase
import VMMHost
import VMMSandbox
import VMMVirtIO

/// `--serial`: the 16550 serial port at 0x3f8, ttyS0 in the guest.
package struct SerialSpec: DeviceSpec {
    package static let word = "serial"
    package static let summary = "The serial port, ttyS0 in the guest"
    private static let modes: [ConsoleEndpoint.Word] = [.off, .null, .tty, .pty, .file, .socket]
    package static var fields: [OptionField] {
        [ConsoleEndpoint.field(modes, default: .null)]
    }
    package static let standard: SerialSpec? = SerialSpec(endpoint: .null)

    package static var sandbox: SandboxNeeds { ConsoleEndpoint.sandbox }

    package let endpoint: ConsoleEndpoint
    package var usesTerminal: Bool { endpoint == .tty }
    package var sandbox: SandboxNeeds { endpoint.sandbox }
    package var files: [SandboxFile] { endpoint.files }

    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> SerialSpec {
        let (endpoint, rest) = try ConsoleEndpoint.take(from: text, allowed: modes)
        try rest.requireNothingMore()
        return SerialSpec(endpoint: endpoint)
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        guard let channel = try endpoint.open(option: Self.option) else { return .none }
        return .serial(channel)
    }
}
