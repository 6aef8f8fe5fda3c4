import Synchronization
import VMMBase
import VMMBus
import VMMDevices
import VMMHost

/// What a machine tells the one who runs it. Sent from any of its threads.
package enum MachineEvent: Sendable {
    /// The guest switched itself off.
    case powerOff
    /// The guest asked for a reset, or fell over its own feet (triple fault).
    case reset
    /// KVM cannot run the guest on, for what it did; a sentence for the user.
    case crashed(String)
    /// The guest has let go of a device that it was asked for.
    case ejected(PCIAddress)
    /// What one of its devices tells.
    case device(DeviceReport)
    /// A thread of ours cannot go on; a sentence for the user.
    case failed(String)
}

/// One vCPU and its thread: enter the guest, answer the exit, again.
final class VirtualCPU: Sendable {
    private enum Command: UInt8, AtomicRepresentable {
        case run
        case stop
    }

    /// What a vCPU's exits reach.
    struct Surroundings: Sendable {
        let ports: Bus
        let memory: Bus
        /// Called with the vector when the guest ends a level-triggered interrupt.
        let endOfInterrupt: @Sendable (UInt8) -> Void
        let notify: @Sendable (MachineEvent) -> Void
    }

    let cpu: KVMVirtualCPU
    private let hasOwnCore: Bool
    private let surroundings: Surroundings
    private let command = Atomic<Command>(.run)
    private let thread = Mutex<HostThread?>(nil)

    init(_ cpu: KVMVirtualCPU, hasOwnCore: Bool, _ surroundings: Surroundings) {
        self.cpu = cpu
        self.hasOwnCore = hasOwnCore
        self.surroundings = surroundings
    }

    /// Starts the thread; the vCPU runs at once, for the first time or on from where it stopped.
    func start() throws(HostError) {
        command.store(.run, ordering: .sequentiallyConsistent)
        let started = try HostThread(
            name: "vcpu\(cpu.id)", role: .processor, hasOwnCore: hasOwnCore
        ) { [self] in run() }
        thread.withLock { $0 = started }
    }

    /// Makes the thread end after the exit at hand.
    func requestStop() {
        command.store(.stop, ordering: .sequentiallyConsistent)
        cpu.kick()
    }

    /// Returns when the thread has ended.
    func join() {
        thread.withLock { $0 }?.join()
    }

    private func run() {
        cpu.adoptCurrentThread()
        while answer(cpu.enter()) {}
    }

    /// Handles one exit; false ends the thread.
    private func answer(_ exit: KVMVirtualCPU.Exit) -> Bool {
        switch exit {
        case .portRead(let port, let width, let count):
            for index in 0..<count {
                let value = surroundings.ports.read(address: UInt64(port), width: width)
                cpu.setPortValue(value, index, width)
            }
        case .portWrite(let port, let width, let count):
            for index in 0..<count {
                surroundings.ports.write(
                    address: UInt64(port), width: width, value: cpu.portValue(index, width))
            }
        case .memoryRead(let address, let count):
            cpu.completeRead(read(address, count))
        case .memoryWrite(let address, let value, let count):
            write(address, count, value)
        case .endOfInterrupt(let vector):
            surroundings.endOfInterrupt(vector)
        case .interrupted:
            // First forget the kick, then look: a later kick is then never lost.
            cpu.clearKick()
            return command.load(ordering: .sequentiallyConsistent) == .run
        case .tripleFault, .reset:
            surroundings.notify(.reset)
            return false
        case .powerOff:
            surroundings.notify(.powerOff)
            return false
        case .crashed(let reason):
            surroundings.notify(.crashed("vCPU \(cpu.id): \(reason)"))
            return false
        case .failed(let reason):
            surroundings.notify(.failed("vCPU \(cpu.id): \(reason)"))
            return false
        }
        return true
    }

    /// Accesses of 3, 5, 6 or 7 bytes (one that crosses a page) are taken byte by byte.
    private func read(_ address: GuestAddress, _ count: Int) -> UInt64 {
        if let width = AccessWidth(rawValue: UInt8(clamping: count)) {
            return surroundings.memory.read(address: address.rawValue, width: width)
        }
        return (0..<count).reduce(UInt64(0)) { value, index in
            let byte = surroundings.memory.read(
                address: address.rawValue &+ UInt64(index), width: .byte)
            return value | (byte & 0xff) << UInt64(8 * index)
        }
    }

    private func write(_ address: GuestAddress, _ count: Int, _ value: UInt64) {
        if let width = AccessWidth(rawValue: UInt8(clamping: count)) {
            surroundings.memory.write(address: address.rawValue, width: width, value: value)
            return
        }
        for index in 0..<count {
            surroundings.memory.write(
                address: address.rawValue &+ UInt64(index), width: .byte,
                value: (value >> UInt64(8 * index)) & 0xff)
        }
    }
}
