import Synchronization
import VMMBase
import VMMHost

/// How others reach the one machine of the process: requests go to the control loop, and what is
/// known of the machine is there without asking it. Any thread.
package final class MachineControl: Sendable {
    /// What a request brought: JSON where it has something to tell.
    package typealias Reply = @Sendable (Result<JSONValue?, RequestFailure>) -> Void

    struct Weak {
        weak var monitor: Monitor?
    }

    private struct Known {
        var state = MachineState.absent
        var configuration: MachineConfiguration?
        var tree: DeviceTree?
    }

    private let loop: EventLoop
    private let monitor: LoopBound<Weak>
    private let known = Mutex(Known())

    init(_ loop: EventLoop, _ monitor: LoopBound<Weak>) {
        self.loop = loop
        self.monitor = monitor
    }

    /// Hands a request to the control loop. `reply` is called on another thread, once, unless the
    /// process ends before.
    package func send(_ request: MachineRequest, reply: @escaping Reply) {
        loop.post { [monitor] in
            monitor.withValue { $0.monitor?.perform(request, reply: reply) }
        }
    }

    package var state: MachineState { known.withLock { $0.state } }

    /// Configuration, state, memory and devices, as `vm.info` tells them; nil while there is no
    /// machine.
    package var info: JSONValue? {
        let known = known.withLock { $0 }
        guard let configuration = known.configuration else { return nil }
        var members: [JSONValue.Member] = [
            .init("config", configuration.json), .init("state", .string(known.state.name)),
            .init("memory_actual_size", .number("\(configuration.memory.byteCount)")),
        ]
        // Not of a machine that is not booted, as there.
        if let tree = known.tree { members.append(.init("device_tree", tree.json)) }
        return .object(members)
    }

    func publish(
        _ state: MachineState, _ configuration: MachineConfiguration?, _ tree: DeviceTree?
    ) {
        known.withLock { $0 = Known(state: state, configuration: configuration, tree: tree) }
    }
}
