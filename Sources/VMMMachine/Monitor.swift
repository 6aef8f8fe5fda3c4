import VMMBase
import VMMBus
import VMMDevices
import VMMHost

/// The one machine of the process, from nothing to its end, on the thread that calls `run`: the
/// control loop. Requests come through `control`.
package final class Monitor {
    /// How a run ended.
    package enum Outcome: Sendable {
        case poweredOff
        case interrupted
        case failed(String)
    }

    /// Opens what a machine needs of the host, and names its devices in the configuration.
    typealias Opener = (inout MachineConfiguration) throws -> any BootableMachine

    private let open: Opener
    let events: EventMonitor?
    let sandbox: MachineSandbox?
    private let signals: ProcessSignals
    let loop: EventLoop
    /// The guest's power-off is not the end of the run.
    private let outlivesGuest: Bool
    var configuration: MachineConfiguration?
    private(set) var booted: (any BootableMachine)?
    private(set) var isPaused = false
    /// What a guest that was paused did last: it counts when the guest goes on.
    private var heldEvent: MachineEvent?
    private var outcome: Outcome?
    /// What is done aside at the moment, and what waits for its end: requests, and what the guest
    /// does.
    var errand: Errand?
    var waiting: [() -> Void] = []
    let weakSelf: LoopBound<MachineControl.Weak>
    /// How other threads reach this one.
    package let control: MachineControl

    /// What happens is told to `events`; `sandbox` confines the process with its first guest.
    package convenience init(
        system: KVMSystem, signals: ProcessSignals, clock: any HostClock, events: EventMonitor?,
        sandbox: MachineSandbox, outlivesGuest: Bool
    ) throws {
        let surroundings = BootedMachine.Surroundings(
            system: system, clock: clock, events: events)
        try self.init(
            signals: signals, events: events, sandbox: sandbox, outlivesGuest: outlivesGuest
        ) {
            let outline = try $0.validate(.init(system))
            try sandbox.prepare(for: outline.devices)
            let machine = try BootedMachine(outline, surroundings)
            $0.takeNames(outline)
            return machine
        }
    }

    /// `open` makes what is booted.
    init(
        signals: ProcessSignals, events: EventMonitor? = nil, sandbox: MachineSandbox? = nil,
        outlivesGuest: Bool = false, open: @escaping Opener
    ) throws {
        self.open = open
        self.events = events
        self.sandbox = sandbox
        self.signals = signals
        self.outlivesGuest = outlivesGuest
        loop = try EventLoop()
        weakSelf = LoopBound(adopting: MachineControl.Weak())
        control = MachineControl(loop, weakSelf)
        weakSelf.withValue { $0.monitor = self }
    }

    /// Creates and boots `first`, or waits for requests where there is none. Returns when the
    /// guest is off for good, or somebody ends it.
    package func run(_ first: MachineConfiguration?) -> Outcome {
        do {
            try loop.add(signals.descriptor, [.readable]) { [unowned self] in takeSignals() }
            watchEvents()
            if let first {
                configuration = first
                try boot()
                publish()
            }
            // A stop may come from an earlier run of the loop: what counts is the outcome.
            while outcome == nil { try loop.run() }
        } catch {
            end(.failed("\(error)"))
        }
        shutDown()
        if case .failed(let reason)? = outcome { events?.tell(.vm, .failed, [("reason", reason)]) }
        delete()
        return outcome ?? .poweredOff
    }

    /// A file never makes anybody wait, and has no events.
    private func watchEvents() {
        guard let events, let descriptor = events.descriptor else { return }
        try? loop.add(descriptor, [.writable, .edgeTriggered]) { events.flush() }
    }

    private func takeSignals() {
        while let signal = signals.next() {
            if signal == ProcessSignals.windowChange {
                booted?.terminalResized()
            } else {
                end(.interrupted)
            }
        }
    }

    /// The first reason counts: what fails after a power-off is of no interest.
    private func end(_ reason: Outcome) {
        if outcome == nil { outcome = reason }
        loop.stop()
    }

    // MARK: life

    private var state: MachineState {
        if booted != nil { return isPaused ? .paused : .running }
        return configuration == nil ? .absent : .created
    }

    private func boot() throws {
        guard var configuration else { return }
        let machine = try open(&configuration)
        booted = machine
        events?.tell(.vm, .booting)
        // Of all threads that there are, and of those that they start.
        let cores = configuration.cpus.coreScheduling
        if cores ?? .machine == .machine { Privileges.claimCores(forProcess: true) }
        if let cores, cores != .off, !Privileges.canClaimCores {
            Log.warning("this kernel has no core scheduling: others may run on the same cores")
        }
        do {
            try sandbox?.prepareControl(configuration, machine)
            try machine.begin(notify: reporter())
            try sandbox?.confineControl()
        } catch {
            shutDown()
            throw error
        }
        self.configuration = configuration
        events?.tell(.vm, .booted)
        ProcessMemory.dropStartupCode()
        ProcessMemory.trimHeap()
    }

    /// The same machine anew, with its devices.
    private func reboot(askedByGuest: Bool) throws {
        guard let booted else { return }
        func tell(_ event: EventMonitor.Event) {
            events?.tell(.vm, event, causedByGuest: askedByGuest)
        }
        tell(.rebooting)
        booted.end()
        forget(booted.removeRequested())
        isPaused = false
        heldEvent = nil
        tell(.shutdown)
        tell(.booting)
        try booted.begin(notify: reporter())
        tell(.booted)
        tell(.rebooted)
        ProcessMemory.trimHeap()
    }

    private func shutDown() {
        errand?.abandon()
        guard let machine = booted else { return }
        machine.end()
        forget(machine.removeRequested())
        machine.finish()
        booted = nil
        isPaused = false
        heldEvent = nil
        events?.tell(.vm, .shutdown)
    }

    private func delete() {
        shutDown()
        guard configuration != nil else { return }
        configuration = nil
        events?.tell(.vm, .deleted)
    }

    func pause() throws {
        events?.tell(.vm, .pausing)
        try booted?.pause()
        isPaused = true
        events?.tell(.vm, .paused)
    }

    func resume() throws {
        events?.tell(.vm, .resuming)
        // One that is over does not go on to be ended a moment later.
        if heldEvent == nil { try booted?.resume() }
        isPaused = false
        events?.tell(.vm, .resumed)
        guard let event = heldEvent else { return }
        heldEvent = nil
        take(event)
    }

    // MARK: events

    /// Brings what a machine's threads tell to the control loop.
    private func reporter() -> @Sendable (MachineEvent, Int) -> Void {
        { [loop, weakSelf] event, life in
            loop.post { weakSelf.withValue { $0.monitor?.take(event, ofLife: life) } }
        }
    }

    private func take(_ event: MachineEvent, ofLife life: Int) {
        guard let booted, booted.life == life, outcome == nil else { return }
        if case .failed = event { return take(event) }
        if errand != nil {
            return waiting.append { [unowned self] in take(event, ofLife: life) }
        }
        switch event {
        case .ejected, .device(.panicked), .device(.ready): return take(event)
        default: break
        }
        if isPaused { heldEvent = heldEvent ?? event } else { take(event) }
    }

    private func take(_ event: MachineEvent) {
        switch event {
        case .failed(let reason): end(.failed(reason))
        case .crashed(let reason) where outlivesGuest:
            Log.error(reason)
            events?.tell(.vm, .failed, [("reason", reason)])
            shutDown()
        case .crashed(let reason): end(.failed(reason))
        case .ejected(let address): removeEjected(address)
        case .device(.panicked(let kind)):
            events?.tell(.guest, .panic, [("event", kind)])
        case .device(.ready): events?.tell(.guest, .ready)
        case .powerOff where outlivesGuest: shutDown()
        case .powerOff: end(.poweredOff)
        case .reset, .device(.watchdogExpired):
            if case .device = event { events?.tell(.vm, .watchdog, causedByGuest: true) }
            Log.info("the guest reboots")
            do {
                try reboot(askedByGuest: true)
            } catch {
                end(.failed("\(error)"))
            }
        }
        publish()
    }

    // MARK: requests

    /// Tells other threads how the machine is now.
    func publish() {
        control.publish(state, configuration, booted?.deviceTree)
    }

    /// Does what is asked, if this is the time for it.
    func perform(_ request: MachineRequest, reply: @escaping MachineControl.Reply) {
        func refuse(_ kind: RequestFailure.Kind, _ reason: String) {
            let failure = RequestFailure(kind, [reason])
            reply(.failure(RequestFailure(request.purpose, failure)))
        }
        guard outcome == nil else { return refuse(.wrongState, "the monitor is ending") }
        if let errand {
            // As if the control loop did the work itself, but for the end of the machine.
            if request.verb.endsMachine { errand.cancel() }
            return waiting.append { [unowned self] in perform(request, reply: reply) }
        }
        switch request.verb.admission(in: state) {
        case .nothing: return reply(.success(nil))
        case .refused(let kind, let reason): return refuse(kind, reason)
        case .done: break
        }
        do {
            switch request {
            case .resizeDisk(let id, let byteCount): try resizeDisk(id, byteCount, reply)
            case .coreDump(let path): try dumpCore(to: path, request, reply)
            case .addDevice(let addition): try addDevice(addition, request, reply)
            default:
                let answer = try carryOut(request)
                publish()
                reply(.success(answer))
            }
        } catch {
            fail(request, error, reply)
        }
    }

    /// Tells everybody that a request which was allowed was not carried out.
    func fail(_ request: MachineRequest, _ error: any Error, _ reply: MachineControl.Reply) {
        publish()
        let failure = RequestFailure(request.purpose, error)
        // The client's own words may be in it: who follows the events gets no more than this.
        let reason = String(failure.chain.joined(separator: ": ").unicodeScalars.prefix(1024))
        events?.tell(.vm, .error, [("request", request.verb.rawValue), ("reason", reason)])
        reply(.failure(failure))
    }

    private func carryOut(_ request: MachineRequest) throws -> JSONValue? {
        switch request {
        case .create(let new): configuration = new
        case .delete: delete()
        case .boot: try boot()
        case .shutdown: shutDown()
        case .reboot: try rebootOnRequest()
        case .pause: try pause()
        case .resume: try resume()
        case .powerButton: booted?.pressPowerButton()
        case .nmi: booted?.injectNMI()
        case .counters: return booted?.counters
        case .removeDevice(let id): try removeDevice(id)
        case .endMonitor:
            delete()
            end(.poweredOff)
        // Answered later.
        case .resizeDisk, .coreDump, .addDevice: break
        }
        return nil
    }

    /// A machine that does not come up again is shut down.
    private func rebootOnRequest() throws {
        do {
            try reboot(askedByGuest: false)
        } catch {
            shutDown()
            throw error
        }
    }

    // MARK: devices that come and go

    private func removeDevice(_ id: String) throws {
        if let booted { return try booted.requestRemoval(of: id) }
        guard configuration?.removeDevice(id) == true else {
            throw RequestFailure(.unknownDevice, ["there is no device '\(id)'"])
        }
    }

    private func removeEjected(_ address: PCIAddress) {
        do {
            forget(try booted?.removeEjected(address).map { [$0] } ?? [])
        } catch {
            end(.failed("\(error)"))
        }
    }

    private func forget(_ removed: [PluggedDevice]) {
        guard !removed.isEmpty else { return }
        for device in removed { _ = configuration?.removeDevice(device.id) }
        // Who hears of it may use again what it had: the descriptors that came for it are in what
        // is published, too.
        publish()
        for device in removed {
            events?.tell(
                .vm, .deviceRemoved, [("id", device.id), ("bdf", device.address.description)])
        }
    }

    private func resizeDisk(
        _ id: String, _ byteCount: UInt64, _ reply: @escaping MachineControl.Reply
    ) throws {
        try booted?.resizeDisk(id, to: byteCount) { reason in
            guard let reason else { return reply(.success(nil)) }
            let failure = RequestFailure(.failed, [reason])
            reply(.failure(RequestFailure("resize the disk", failure)))
        }
    }
}

extension MachineRequest {
    /// What it is to do, for the sentence that says that it failed.
    fileprivate var purpose: String {
        switch self {
        case .create: "create the VM"
        case .delete: "delete the VM"
        case .boot: "boot the VM"
        case .shutdown: "shut the VM down"
        case .reboot: "reboot the VM"
        case .pause: "pause the VM"
        case .resume: "resume the VM"
        case .powerButton: "press the power button"
        case .nmi: "send an NMI"
        case .counters: "read the counters"
        case .resizeDisk: "resize the disk"
        case .coreDump: "dump the guest's memory"
        case .addDevice(let addition): addition.purpose
        case .removeDevice: "remove the device"
        case .endMonitor: "end the monitor"
        }
    }
}
