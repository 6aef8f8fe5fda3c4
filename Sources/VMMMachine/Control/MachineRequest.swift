import VMMBase

/// What the control loop can be asked to do.
package enum MachineRequest: Sendable {
    case create(MachineConfiguration)
    case delete, boot, shutdown, reboot, pause, resume, powerButton, nmi, counters
    case resizeDisk(id: String, byteCount: UInt64)
    /// Writes registers and memory to a new file of this path.
    case coreDump(path: String)
    case addDevice(DeviceAddition)
    case removeDevice(id: String)
    /// Ends the machine and the process.
    case endMonitor

    package var verb: MachineVerb {
        switch self {
        case .create: .create
        case .delete: .delete
        case .boot: .boot
        case .shutdown: .shutdown
        case .reboot: .reboot
        case .pause: .pause
        case .resume: .resume
        case .powerButton: .powerButton
        case .nmi: .nmi
        case .counters: .counters
        case .resizeDisk: .resizeDisk
        case .coreDump: .coreDump
        case .addDevice(let addition): addition.verb
        case .removeDevice: .removeDevice
        case .endMonitor: .endMonitor
        }
    }
}

/// The requests, by their names in the API, and which of them each state allows. This table is the
/// only place that says so; `docs/API.md` shows it.
package enum MachineVerb: String, CaseIterable, Sendable {
    case create = "vm.create"
    case delete = "vm.delete"
    case boot = "vm.boot"
    case shutdown = "vm.shutdown"
    case reboot = "vm.reboot"
    case pause = "vm.pause"
    case resume = "vm.resume"
    case powerButton = "vm.power-button"
    case nmi = "vm.nmi"
    case counters = "vm.counters"
    case resizeDisk = "vm.resize-disk"
    case coreDump = "vm.coredump"
    case addDisk = "vm.add-disk"
    case addNet = "vm.add-net"
    case addVsock = "vm.add-vsock"
    case removeDevice = "vm.remove-device"
    case endMonitor = "vmm.shutdown"

    /// What becomes of a request in a state.
    package enum Admission: Equatable, Sendable {
        case done
        /// Nothing is left to do, and that is fine.
        case nothing
        case refused(RequestFailure.Kind, String)
    }

    /// What becomes of this request in `state`.
    package func admission(in state: MachineState) -> Admission {
        let row = row
        return switch state {
        case .absent: row.0
        case .created: row.1
        case .running: row.2
        case .paused: row.3
        }
    }

    /// The kinds of failure that a client may have to tell apart: those of the states, and what can
    /// go wrong when the request is carried out.
    package var failures: Set<RequestFailure.Kind> {
        var kinds: Set<RequestFailure.Kind> = [.failed]
        for case .refused(let kind, _) in MachineState.allCases.map({ admission(in: $0) }) {
            kinds.insert(kind)
        }
        switch self {
        case .create, .boot, .addDisk, .addNet, .addVsock:
            kinds.formUnion([.invalid, .conflict])
        case .coreDump: kinds.insert(.invalid)
        case .resizeDisk, .removeDevice: kinds.insert(.unknownDevice)
        default: break
        }
        return kinds
    }

    /// Nobody has to wait for what is done with a machine that ends.
    var endsMachine: Bool {
        switch self {
        case .delete, .shutdown, .endMonitor: true
        default: false
        }
    }

    private typealias Row = (Admission, Admission, Admission, Admission)

    private var row: Row {
        let exists = Admission.refused(.wrongState, "the VM is already created")
        let boots = Admission.refused(.wrongState, "the VM is already booted")
        let stands = Admission.refused(.wrongState, "the VM is not running")
        let runs = Admission.refused(.wrongState, "the VM is not paused")
        let pauses = Admission.refused(.wrongState, "the VM is already paused")
        let lacks = Admission.refused(.notCreated, "the VM is not created")
        let unbooted = Admission.refused(.notCreated, "the VM is not booted")
        // Absent, created, running, paused.
        return switch self {
        case .create: (.done, exists, exists, exists)
        case .delete: (.nothing, .done, .done, .done)
        case .boot: (lacks, .done, boots, boots)
        case .shutdown: (stands, stands, .done, .done)
        case .reboot: (lacks, unbooted, .done, .done)
        case .pause: (stands, stands, .done, pauses)
        case .resume: (stands, stands, runs, .done)
        case .powerButton: (stands, stands, .done, .done)
        case .nmi: (stands, stands, .done, .done)
        case .counters: (stands, stands, .done, .done)
        case .resizeDisk: (lacks, stands, .done, .done)
        case .coreDump: (stands, stands, .done, .done)
        // Of a machine that is not booted, the configuration changes.
        case .addDisk, .addNet, .addVsock, .removeDevice: (lacks, .done, .done, .done)
        case .endMonitor: (.done, .done, .done, .done)
        }
    }
}
