/// Where a machine is in its life, as the API's clients see it.
package enum MachineState: CaseIterable, Sendable {
    /// There is none.
    case absent
    /// It has a configuration, and takes nothing of the host's. Also after a shutdown.
    case created
    case running
    case paused

    /// As `vm.info` spells it. Cloud Hypervisor's `Shutdown` is never seen there either: it gives
    /// a machine that was shut down for `Created`.
    package var name: String {
        switch self {
        case .absent: ""
        case .created: "Created"
        case .running: "Running"
        case .paused: "Paused"
        }
    }
}
