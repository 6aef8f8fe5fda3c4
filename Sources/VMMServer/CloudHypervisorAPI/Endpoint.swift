import VMMBase
import VMMHost
import VMMMachine

/// What can be asked under `/api/v1/`: the name, the method, what the body is, and what comes
/// back. What becomes of a request in each state of the machine is in `MachineVerb`.
package struct Endpoint: Sendable {
    package enum Body: Sendable {
        /// None is allowed.
        case none
        case ignored
        /// JSON, of this schema of the OpenAPI document.
        case required(schema: String)
    }

    /// Makes the machine's request of the body, and of the descriptors that came with it.
    package typealias Maker =
        @Sendable (JSONValue, [FileDescriptor]) throws -> MachineRequest

    package enum Action: Sendable {
        case ping, info
        /// What happens, line by line.
        case events
        /// The OpenAPI document.
        case description
        /// Answered by the control loop.
        case machine(MachineVerb, Maker)
        /// Cloud Hypervisor has it, and we do not yet.
        case missing
    }

    /// What a request that was carried out brings.
    package enum Answer: Sendable {
        /// Status 204.
        case nothing
        /// Status 200 all the same.
        case empty
        /// JSON, of this schema of the OpenAPI document.
        case json(schema: String)
        /// Lines of JSON without end, each of this schema of the OpenAPI document.
        case lines(schema: String)
    }

    package let name: String
    package let method: String
    package let body: Body
    package let answer: Answer
    package let action: Action
    /// What it does, in one line.
    package let summary: String

    /// All of them.
    package static let all: [Endpoint] =
        [
            Endpoint(
                "vmm.ping", .ping, answer: .json(schema: "VmmPingResponse"),
                "Tells who answers; always at once"),
            Endpoint(
                "vm.info", .info, answer: .json(schema: "VmInfo"),
                "Tells the machine's configuration and state; always at once"),
            Endpoint(
                "vm.events", .events, answer: .lines(schema: "Event"),
                "Tells from now on what happens, a line of JSON for each event"),
            Endpoint(
                "openapi.json", .description, answer: .json(schema: "OpenAPI"),
                "This description of the API"),
            Endpoint(
                .counters, method: "GET", body: .ignored, answer: .json(schema: "VmCounters"),
                "Tells what disks and networks have done, by device"
            ) { _ in .counters },
            Endpoint(
                .endMonitor, body: .ignored, answer: .empty,
                "Deletes the machine and ends the process"
            ) { _ in .endMonitor },
            Endpoint(
                .create, body: .required(schema: "VmConfig"),
                "Remembers a configuration: its shape is checked, the rest when it is booted"
            ) { .create(try MachineConfiguration(json: $0)) },
            Endpoint(.delete, "Shuts down and forgets the configuration") { _ in .delete },
            Endpoint(.boot, "Opens files and devices and starts the guest") { _ in .boot },
            Endpoint(.pause, "Stops vCPUs, devices and the guest's clocks") { _ in .pause },
            Endpoint(.resume, "Goes on; to the guest no time has passed") { _ in .resume },
            Endpoint(.shutdown, "Switches the guest off as by pulling the plug") { _ in
                .shutdown
            },
            Endpoint(.reboot, "Starts the guest anew, with the same open devices") { _ in
                .reboot
            },
            Endpoint(.powerButton, "Presses the ACPI power button") { _ in .powerButton },
            Endpoint(.nmi, "Raises an NMI on every vCPU") { _ in .nmi },
            Endpoint(
                .resizeDisk, body: .required(schema: "VmResizeDisk"), "Gives a disk another size"
            ) { json in
                let wish = try JSONDecoder.decode(DiskSize.self, from: json)
                return .resizeDisk(id: wish.id, byteCount: wish.desired_size)
            },
            Endpoint(
                .coreDump, body: .required(schema: "VmCoredumpData"),
                "Writes the guest's registers and memory to a new file, an ELF core"
            ) { json in
                let wish = try JSONDecoder.decode(Destination.self, from: json)
                return .coreDump(path: try wish.path())
            },
            Endpoint(
                .addDisk, adding: "DiskConfig", "Plugs a disk in; 204 before the machine is booted"
            ) { try .disk($0, $1) },
            Endpoint(
                .addNet, adding: "NetConfig",
                "Plugs a network interface in; 204 before the machine is booted"
            ) { try .network($0, $1) },
            Endpoint(
                .addVsock, adding: "VsockConfig",
                "Plugs a socket device in; 204 before the machine is booted"
            ) { try .vsock($0, $1) },
            Endpoint(
                .removeDevice, body: .required(schema: "VmRemoveDevice"),
                "Asks the guest to let go of a device; the event device-removed tells that it has"
            ) { json in
                .removeDevice(id: try JSONDecoder.decode(DeviceName.self, from: json).id)
            },
        ]
        + [
            "vm.resize", "vm.resize-zone", "vm.add-device", "vm.add-user-device", "vm.add-fs",
            "vm.add-pmem", "vm.add-vdpa", "vm.add-generic-vhost-user", "vm.snapshot",
            "vm.restore", "vm.receive-migration", "vm.send-migration",
        ].map {
            Endpoint(
                $0, .missing, method: "PUT", answer: .nothing,
                "Is not there yet: the answer is always a failure")
        }

    private struct DeviceName: Decodable {
        let id: String
    }

    private struct Destination: Decodable {
        let destination_url: String

        func path() throws -> String {
            let scheme = "file://"
            let path = destination_url.dropFirst(scheme.count)
            guard destination_url.hasPrefix(scheme), !path.isEmpty, !path.contains("\0") else {
                throw JSONError(path: "destination_url", reason: "expected file:///PATH")
            }
            return String(path)
        }
    }

    private struct DiskSize: Decodable {
        let id: String
        let desired_size: UInt64
    }

    private init(
        _ name: String, _ action: Action, method: String = "GET", body: Body = .ignored,
        answer: Answer, _ summary: String
    ) {
        self.name = name
        self.method = method
        self.body = body
        self.answer = answer
        self.action = action
        self.summary = summary
    }

    private init(
        _ verb: MachineVerb, method: String = "PUT", body: Body = .none,
        answer: Answer = .nothing, _ summary: String,
        _ request: @escaping @Sendable (JSONValue) throws -> MachineRequest
    ) {
        self.init(
            verb.rawValue, .machine(verb) { json, _ in try request(json) }, method: method,
            body: body, answer: answer, summary)
    }

    /// A device that is to come, described by this schema of the OpenAPI document.
    private init(
        _ verb: MachineVerb, adding schema: String, _ summary: String,
        _ addition: @escaping @Sendable (JSONValue, [FileDescriptor]) throws -> DeviceAddition
    ) {
        self.init(
            verb.rawValue, .machine(verb) { .addDevice(try addition($0, $1)) }, method: "PUT",
            body: .required(schema: schema), answer: .json(schema: "PciDeviceInfo"), summary)
    }
}
