import VMMBase
import VMMHost
import VMMSandbox
import VMMVirtIO

/// `--debug-console`: one output port for firmware and early code.
package struct DebugConsoleSpec: DeviceSpec {
    package static let word = "debug-console"
    package static let jsonName = "debug_console"
    package static let summary = "The debug console's port"
    private static let modes: [ConsoleEndpoint.Word] = [.off, .null, .tty, .pty, .file]
    package static var fields: [OptionField] {
        [
            ConsoleEndpoint.field(modes, default: .off),
            OptionField("iobase", "0x<port>", "the port's number", default: "0xe9"),
        ]
    }
    package static let standardPort: UInt16 = 0xe9

    package static var sandbox: SandboxNeeds { ConsoleEndpoint.sandbox }

    package let endpoint: ConsoleEndpoint
    package let port: UInt16
    package var usesTerminal: Bool { endpoint == .tty }
    package var sandbox: SandboxNeeds { endpoint.sandbox }
    package var files: [SandboxFile] { endpoint.files }

    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> DebugConsoleSpec {
        let (endpoint, rest) = try ConsoleEndpoint.take(from: text, allowed: modes)
        guard let pair = rest.pairs.first else {
            return DebugConsoleSpec(endpoint: endpoint, port: standardPort)
        }
        guard pair.key == "iobase" else {
            try rest.requireNothingMore()
            return DebugConsoleSpec(endpoint: endpoint, port: standardPort)
        }
        guard let value = pair.value, value.hasPrefix("0x"),
            value.dropFirst(2).allSatisfy(\.isHexDigit),
            let port = UInt16(value.dropFirst(2), radix: 16)
        else {
            throw ConfigurationProblem(
                option: "\(text.option) iobase", value: pair.value ?? "",
                reason: "expected a port number from 0x0 to 0xffff")
        }
        try OptionText(option: text.option, pairs: Array(rest.pairs.dropFirst()))
            .requireNothingMore()
        return DebugConsoleSpec(endpoint: endpoint, port: port)
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        guard let channel = try endpoint.open(option: Self.option) else { return .none }
        return .debugConsole(channel, port: port)
    }
}
