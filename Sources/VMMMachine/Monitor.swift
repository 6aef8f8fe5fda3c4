import Synchronization
import VMMBase
import VMMDevices
import VMMHost

/// Runs a machine through its lives, on the thread that calls `run`: the control loop.
package final class Monitor {
    /// How a run ended.
    package enum Outcome: Sendable {
        case poweredOff
        case interrupted
        case failed(String)
    }

    private let outline: MachineOutline
    private let system: KVMSystem
    private let payload: Payload
    private let devices: DeviceSet
    private let signals: ProcessSignals
    private let control: EventLoop
    private let io: EventLoop
    private let clock: any HostClock
    private var wasInterrupted = false
    private var isFirstLife = true

    /// Opens all that the outline names.
    package init(
        _ outline: MachineOutline, system: KVMSystem, signals: ProcessSignals,
        clock: any HostClock
    ) throws {
        self.outline = outline
        self.system = system
        self.signals = signals
        self.clock = clock
        control = try EventLoop()
        io = try EventLoop()
        payload = try Payload(outline)
        devices = try DeviceSet(outline, loop: io, clock: clock)
    }

    /// Runs the guest until it is off for good.
    package func run() -> Outcome {
        defer { devices.finish() }
        do {
            try control.add(signals.descriptor, [.readable]) { [unowned self] in takeSignals() }
            while true {
                let event = try runOnce()
                if wasInterrupted { return .interrupted }
                switch event {
                case .powerOff: return .poweredOff
                case .reset: Log.info("the guest reboots")
                case .failed(let reason): return .failed(reason)
                }
            }
        } catch {
            return .failed("\(error)")
        }
    }

    /// One life of the machine: from the first instruction to the event that ends it.
    private func runOnce() throws -> MachineEvent {
        let ending = Ending(control)
        let builder = MachineBuilder(
            outline: outline, system: system, payload: payload, devices: devices, loop: io,
            clock: clock, notify: { ending.end($0) })
        let machine = try builder.build()
        if isFirstLife { devices.guestStarts() }
        isFirstLife = false
        let thread = try HostThread(name: "io") { [io] in
            do throws(HostError) {
                try io.run()
            } catch {
                ending.end(.failed("the I/O thread: \(error)"))
            }
        }
        do {
            try machine.start()
        } catch {
            ending.end(.failed("\(error)"))
        }
        ProcessMemory.dropStartupCode()
        ProcessMemory.trimHeap()
        // A stop that an earlier life left behind ends a run early: what counts is the event.
        while ending.event == nil, !wasInterrupted {
            do throws(HostError) {
                try control.run()
            } catch {
                ending.end(.failed("the control loop: \(error)"))
            }
        }
        machine.stopVCPUs()
        io.stop()
        thread.join()
        machine.unplugDevices()
        return ending.event ?? .powerOff
    }

    private func takeSignals() {
        while let signal = signals.next() {
            if signal == ProcessSignals.windowChange {
                devices.terminalResized()
            } else {
                wasInterrupted = true
                control.stop()
            }
        }
    }
}

/// How one life of the machine ended: the first event counts, for a failure after a power-off is
/// of no interest. Any thread.
private final class Ending: Sendable {
    private let first = Mutex<MachineEvent?>(nil)
    private let control: EventLoop

    init(_ control: EventLoop) {
        self.control = control
    }

    var event: MachineEvent? { first.withLock { $0 } }

    func end(_ event: MachineEvent) {
        first.withLock { first in
            if first == nil { first = event }
        }
        control.stop()
    }
}
