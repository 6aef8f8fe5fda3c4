import ArgumentParser
import VMMDevices

/// What a monitor can be asked for: ch-remote's verbs, and `watch`. This table is all that is
/// known of them.
struct RemoteVerb: ExpressibleByArgument {
    /// What a verb takes besides its name.
    enum Input {
        case nothing
        /// A file with the JSON, or standard input.
        case file
        /// Options of the command, and the members of the JSON that they become.
        case options([Option])
        /// `key=value,...` as the monitor's own command line has it; of a device that it knows,
        /// or of one that it does not know yet. A value alone is the member `bare`.
        case text(device: (any DeviceSpec.Type)?, bare: String?)
    }

    struct Option {
        let name: String
        let member: String
        let isNumber: Bool
        let isRequired: Bool

        init(_ name: String, _ member: String, isNumber: Bool = true, isRequired: Bool = true) {
            self.name = name
            self.member = member
            self.isNumber = isNumber
            self.isRequired = isRequired
        }
    }

    let name: String
    let method: String
    let endpoint: String
    let input: Input
    let summary: String

    private init(
        _ name: String, _ endpoint: String, _ input: Input = .nothing, _ summary: String
    ) {
        self.name = name
        // What only tells something.
        let asks = ["vmm.ping", "vm.info", "vm.counters", "vm.events"]
        method = asks.contains(endpoint) ? "GET" : "PUT"
        self.endpoint = endpoint
        self.input = input
        self.summary = summary
    }

    init?(argument: String) {
        guard let verb = Self.all.first(where: { $0.name == argument }) else { return nil }
        self = verb
    }

    static var defaultCompletionKind: CompletionKind { .list(all.map(\.name)) }

    /// The table as the help shows it.
    static var help: String {
        let width = all.map(\.name.count).max() ?? 0
        let lines = all.map { verb in
            let space = String(repeating: " ", count: width - verb.name.count + 2)
            return "  \(verb.name)\(space)\(verb.summary)"
        }
        return "VERBS:\n" + lines.joined(separator: "\n")
    }

    private static func device(_ name: String, _ what: String) -> RemoteVerb {
        RemoteVerb(name, "vm.\(name)", .text(device: nil, bare: nil), "Adds \(what): key=value,...")
    }

    static let all: [RemoteVerb] = [
        device("add-device", "a device of the host"),
        RemoteVerb(
            "add-disk", "vm.add-disk", .text(device: BlockSpec.self, bare: nil),
            "Adds a disk: path=FILE,..."),
        device("add-fs", "a shared directory"),
        device("add-generic-vhost-user", "a device of another process"),
        RemoteVerb(
            "add-net", "vm.add-net", .text(device: NetworkSpec.self, bare: nil),
            "Adds a network interface: tap=NAME,...; with fd=[N,..] descriptors are handed over"),
        device("add-pmem", "persistent memory"),
        device("add-user-device", "a vfio-user device"),
        device("add-vdpa", "a vDPA device"),
        RemoteVerb(
            "add-vsock", "vm.add-vsock", .text(device: VsockSpec.self, bare: nil),
            "Adds a socket device: cid=N,socket=PATH"),
        RemoteVerb("boot", "vm.boot", "Boots the machine that was created"),
        RemoteVerb(
            "coredump", "vm.coredump", .text(device: nil, bare: "destination_url"),
            "Writes the guest's memory to a file: file:///PATH"),
        RemoteVerb("counters", "vm.counters", "Tells what devices have done"),
        RemoteVerb(
            "create", "vm.create", .file,
            "Gives the monitor a machine's configuration: FILE with JSON; - is standard input"),
        RemoteVerb("delete", "vm.delete", "Switches the machine off and forgets it"),
        RemoteVerb("info", "vm.info", "Tells the machine's configuration and state"),
        RemoteVerb("nmi", "vm.nmi", "Raises an NMI on every vCPU"),
        RemoteVerb("pause", "vm.pause", "Makes the machine stand still"),
        RemoteVerb("ping", "vmm.ping", "Tells who answers"),
        RemoteVerb("power-button", "vm.power-button", "Presses the ACPI power button"),
        RemoteVerb("reboot", "vm.reboot", "Starts the guest anew"),
        RemoteVerb(
            "receive-migration", "vm.receive-migration",
            .text(device: nil, bare: "receiver_url"), "Takes a machine over"),
        RemoteVerb(
            "remove-device", "vm.remove-device", .text(device: nil, bare: "id"),
            "Takes a device away: its name"),
        RemoteVerb(
            "resize", "vm.resize",
            .options([
                Option("cpus", "desired_vcpus", isRequired: false),
                Option("memory", "desired_ram", isRequired: false),
                Option("balloon", "desired_balloon", isRequired: false),
            ]), "Changes --cpus, --memory or --balloon"),
        RemoteVerb(
            "resize-disk", "vm.resize-disk",
            .options([Option("disk", "id", isNumber: false), Option("size", "desired_size")]),
            "Gives a --disk another --size"),
        RemoteVerb(
            "resize-zone", "vm.resize-zone",
            .options([Option("id", "id", isNumber: false), Option("size", "desired_ram")]),
            "Gives a zone of memory, --id, another --size"),
        RemoteVerb(
            "restore", "vm.restore", .text(device: nil, bare: "source_url"),
            "Makes a machine of a snapshot"),
        RemoteVerb("resume", "vm.resume", "Lets a paused machine go on"),
        RemoteVerb(
            "send-migration", "vm.send-migration", .text(device: nil, bare: "destination_url"),
            "Hands the machine over"),
        RemoteVerb("shutdown", "vm.shutdown", "Switches the machine off, without asking the guest"),
        RemoteVerb("shutdown-vmm", "vmm.shutdown", "Ends machine and monitor"),
        RemoteVerb(
            "snapshot", "vm.snapshot", .text(device: nil, bare: "destination_url"),
            "Saves a paused machine"),
        RemoteVerb("watch", "vm.events", "Tells what happens, until the monitor ends"),
    ]

    private init(_ name: String, _ endpoint: String, _ summary: String) {
        self.init(name, endpoint, .nothing, summary)
    }
}
