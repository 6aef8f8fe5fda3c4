import VMMBase
import VMMBus
import VMMHost
import VMMSandbox
import VMMVirtIO

/// What one device's user writes, and how it becomes a device. The command line, the help and
/// the checks all follow from the specs in `DeviceCatalog.all`.
package protocol DeviceSpec: Sendable {
    /// The option's name without dashes, such as `disk`.
    static var word: String { get }
    /// The name of the device, or of the list of such devices, in a machine's JSON.
    static var jsonName: String { get }
    /// One line for the help.
    static var summary: String { get }
    /// Made anew for whoever asks: a machine starts with them, and runs without.
    static var fields: [OptionField] { get }
    /// May be given several times.
    static var isRepeatable: Bool { get }
    /// Has no keys: a bare word, and true or false in JSON.
    static var isFlag: Bool { get }
    /// May come and go while the machine runs.
    static var isHotpluggable: Bool { get }
    /// The device that there is when the user says nothing; nil for none.
    static var standard: Self? { get }
    /// What any device of the kind may take of the host: for one that comes later.
    static var sandbox: SandboxNeeds { get }

    /// Decodes the option's value; a `Decodable` spec gets this from `fields`.
    static func parse(_ text: OptionText) throws(ConfigurationProblem) -> Self

    /// The user's name for the device, where it has one.
    var id: String? { get }
    /// Where on PCI the user wants it.
    var place: PlaceOptions { get }
    /// Numbers of descriptors of this process that the device is made of.
    var descriptorNumbers: [Int32] { get }
    /// The device talks to the terminal that the monitor was started on; only one can.
    var usesTerminal: Bool { get }
    /// What this device takes of the host.
    var sandbox: SandboxNeeds { get }
    /// The files that opening it, or giving it up, reaches by their paths.
    var files: [SandboxFile] { get }
    /// The sockets of others that it connects to by their paths.
    var peers: [String] { get }
    /// The device is seen among the host's network interfaces.
    var usesHostNetwork: Bool { get }
    /// The device is the work of another program, which a confined monitor cannot start.
    var startsProgram: Bool { get }
    /// Mistakes that show without touching the host.
    func problems() -> [ConfigurationProblem]
    /// Opens what the host side needs and makes the device. Errors are sentences for the user.
    func build(_ context: DeviceContext) throws -> BuiltDevice
}

extension DeviceSpec {
    package static var jsonName: String { word }
    package static var isRepeatable: Bool { false }
    package static var isFlag: Bool { false }
    package static var isHotpluggable: Bool { false }
    package static var standard: Self? { nil }
    package var id: String? { nil }
    package var place: PlaceOptions { PlaceOptions() }
    package var descriptorNumbers: [Int32] { [] }
    package var usesTerminal: Bool { false }
    package var sandbox: SandboxNeeds { Self.sandbox }
    package var files: [SandboxFile] { [] }
    package var peers: [String] { [] }
    package var usesHostNetwork: Bool { false }
    package var startsProgram: Bool { false }

    package func problems() -> [ConfigurationProblem] { [] }

    /// The option as the user spells it, for messages.
    package static var option: String { "--" + word }

    func problem(_ key: String, _ value: String, _ reason: String) -> ConfigurationProblem {
        ConfigurationProblem(option: "\(Self.option) \(key)", value: value, reason: reason)
    }
}

/// What a device may use of its surroundings when it is built.
package struct DeviceContext: Sendable {
    /// The device's name, unique in the machine.
    package let id: String
    package let loop: EventLoop
    package let clock: any HostClock
    /// The limits that several disks may share, by name.
    package var rateLimitGroups: [String: RateLimiter] = [:]
    /// Tells the machine something. Any thread.
    package var report: @Sendable (DeviceReport) -> Void = { _ in }

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
    /// Another function of the PCI bus, made for each life of the machine: registers of so many
    /// bytes, on that bus at that address.
    case card(byteCount: UInt64, make: @Sendable (Bus, GuestAddress) -> any PCICard)
    /// Switched off.
    case none
}

extension DeviceSpec where Self: Decodable {
    package static func parse(_ text: OptionText) throws(ConfigurationProblem) -> Self {
        try OptionDecoder.decode(Self.self, from: text, fields: fields)
    }
}
