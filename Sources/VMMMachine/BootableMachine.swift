import VMMBase
import VMMBus
import VMMHost
import VMMSandbox

/// What the control loop does with a machine whose host side is open. Belongs to its thread.
protocol BootableMachine: AnyObject {
    /// Changes with each life, so that events of an earlier one can be told apart.
    var life: Int { get }
    /// The files that its devices are made of.
    var files: [SandboxFile] { get }
    /// What the devices have done, by their names.
    var counters: JSONValue { get }

    /// The devices that there are at the moment.
    var deviceTree: DeviceTree? { get }

    /// Begins a life: from nothing to the guest's first instruction. `notify` is told, on any
    /// thread, what ends it.
    func begin(notify: @escaping @Sendable (MachineEvent, Int) -> Void) throws
    /// Ends the life. The devices are kept for the next one.
    func end()
    /// Gives up all that was opened. After `end`.
    func finish()

    /// Stands still: no vCPU runs, no device touches guest memory, and the guest's clocks stop.
    func pause() throws(HostError)
    /// Goes on where it stood still.
    func resume() throws(HostError)

    /// What writes registers and memory to a new file, on any thread, while the machine stands
    /// still. It gives up when `goesOn` says so.
    func coreDump() throws -> @Sendable (_ path: String, _ goesOn: () -> Bool) throws -> Void

    func terminalResized()
    func pressPowerButton()
    func injectNMI()
    /// Gives a disk another size; `done` is told on any thread.
    func resizeDisk(
        _ id: String, to byteCount: UInt64, done: @escaping @Sendable (String?) -> Void
    ) throws(RequestFailure)

    /// What opens the one device that `configuration` has and the machine has not, on any thread;
    /// its name is written there.
    func opener(
        ofNewIn configuration: inout MachineConfiguration
    ) throws -> @Sendable () throws -> OpenedDevice
    /// Plugs in what was opened, or finishes it.
    func plug(_ opened: OpenedDevice) throws -> PluggedDevice
    /// Asks the guest to let go of a device; also again.
    func requestRemoval(of id: String) throws(RequestFailure)
    /// Ends the device that the guest has let go of; nil when there is none.
    func removeEjected(_ address: PCIAddress) throws -> PluggedDevice?
    /// Ends what the guest was asked to let go of and had not when its life ended. After `end`.
    func removeRequested() -> [PluggedDevice]
}

extension BootableMachine {
    var files: [SandboxFile] { [] }
}
