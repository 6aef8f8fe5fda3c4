import VMMBase
import VMMHost
import VMMVirtIO

/// What one device's user writes, and how it becomes a device. The command line, the help and
/// the checks all follow from the specs in `DeviceCatalog.all`.
package protocol DeviceSpec: Sendable {
    /// The option's name without dashes, such as `disk`.
    static var word: String { get }
    /// One line for the help.
    static var summary: String { get }
    static var fields: [OptionField] { get }
    /// May be given several times.
    static var isRepeatable: Bool { get }
    /// The device that there is when the user says nothing; nil for none.
    static var standard: Self? { get }

    /// Decodes the option's value; a `Decodable` spec gets this from `fields`.
    static func parse(_ text: OptionText) throws(ConfigurationProblem) -> Self

    /// The user's name for the device, where it has one.
    var id: String? { get }
    /// The device number on the PCI bus that the user asked for.
    var pciDevice: UInt8? { get }
    /// The device talks to the terminal that the monitor was started on; only one can.
    var usesTerminal: Bool { get }
    /// Mistakes that show without touching the host.
    func problems() -> [ConfigurationProblem]
    /// Opens what the host side needs and makes the device. Errors are sentences for the user.
    func build(_ context: DeviceContext) throws -> BuiltDevice
}

extension DeviceSpec {
    package static var isRepeatable: Bool { false }
    package static var standard: Self? { nil }
    package var id: String? { nil }
    package var pciDevice: UInt8? { nil }
    package var usesTerminal: Bool { false }

    package func problems() -> [ConfigurationProblem] { [] }

    /// The option as the user spells it, for messages.
    package static var option: String { "--" + word }

    func problem(_ key: String, _ value: String, _ reason: String) -> ConfigurationProblem {
        ConfigurationProblem(option: "\(Self.option) \(key)", value: value, reason: reason)
    }
}

/// What a device may use of its surroundings when it is built.
package struct DeviceContext {
    /// The device's name, unique in the machine.
    package let id: String
    package let loop: EventLoop
    package let clock: any HostClock
    /// The limits that several disks may share, by name.
    package var rateLimitGroups: [String: RateLimiter] = [:]

    package init(id: String, loop: EventLoop, clock: any HostClock) {
        self.id = id
        self.loop = loop
        self.clock = clock
    }
}

/// What a spec turned into.
package enum BuiltDevice {
    /// Goes onto the PCI bus. A console brings its channel, already started.
    case virtIO(any VirtIODevice, channel: (any ByteChannel)? = nil)
    /// The serial port's other end.
    case serial(any ByteChannel)
    /// The debug console's other end, and its port.
    case debugConsole(any ByteChannel, port: UInt16)
    /// Switched off.
    case none
}

extension DeviceSpec where Self: Decodable {
    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> Self {
        try OptionDecoder.decode(Self.self, from: text, fields: fields)
    }
}
