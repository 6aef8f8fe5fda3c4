import VMMBase
import VMMBus
import VMMDevices
import VMMHost
import VMMSandbox
import VMMVirtIO

/// A machine that has been booted, through its reboots to its shutdown: what it opened of the
/// host's, its I/O thread, and the life it is in. Belongs to the control loop's thread.
final class BootedMachine: BootableMachine {
    /// What all machines of the process have in common.
    struct Surroundings {
        let system: KVMSystem
        let clock: any HostClock
        let events: EventMonitor?
    }

    private let outline: MachineOutline
    private let guestLog: GuestLog
    private(set) var life = 0
    private let surroundings: Surroundings
    private let payload: Payload
    private let devices: DeviceSet
    private let io: EventLoop
    private var thread: HostThread?
    private var machine: Machine?
    private var stoppedClock: GuestClock?
    /// Where the I/O thread is while the machine is paused.
    private var parking: Parking?
    /// Devices that the guest was asked to let go of.
    private var requestedRemovals: Set<String> = []

    /// Opens all that the outline names.
    init(_ outline: MachineOutline, _ surroundings: Surroundings) throws {
        self.outline = outline
        self.surroundings = surroundings
        guestLog = GuestLog(clock: surroundings.clock)
        io = try EventLoop()
        payload = try Payload(outline)
        devices = try DeviceSet(outline, loop: io, clock: surroundings.clock)
    }

    func begin(notify: @escaping @Sendable (MachineEvent, Int) -> Void) throws {
        life += 1
        let once = OncePerLife()
        let report: @Sendable (MachineEvent) -> Void = { [life] in
            if once.admits($0) { notify($0, life) }
        }
        devices.reports.connect { [guestLog] device in
            if case .panicked(let kind) = device {
                guestLog.devices.warn("the guest panics: \(kind)")
            }
            report(.device(device))
        }
        let builder = MachineBuilder(
            outline: outline, system: surroundings.system, payload: payload, devices: devices,
            loop: io, clock: surroundings.clock, events: surroundings.events, guestLog: guestLog,
            notify: report)
        let machine = try builder.build()
        self.machine = machine
        if life == 1 { devices.guestStarts() }
        try startIO(report)
        try machine.start()
    }

    private func startIO(_ report: @escaping @Sendable (MachineEvent) -> Void) throws(HostError) {
        thread = try HostThread(name: "io", role: .device) { [io] in
            do throws(HostError) {
                try io.run()
            } catch {
                report(.failed("the I/O thread: \(error)"))
            }
        }
    }

    private func stopIO() {
        guard let thread else { return }
        io.stop()
        thread.join()
        self.thread = nil
    }

    func end() {
        machine?.stopVCPUs()
        parking?.release()
        parking = nil
        stopIO()
        machine?.unplugDevices()
        machine = nil
        stoppedClock = nil
    }

    func finish() { devices.finish() }

    func terminalResized() { devices.terminalResized() }

    // MARK: pause

    func pause() throws(HostError) {
        guard let machine else { return }
        machine.stopVCPUs()
        let clock = machine.stopClock()
        let transports = machine.transports
        do throws(HostError) {
            parking = try Parking(io) {
                for transport in transports { transport.pause() }
            } after: {
                for transport in transports { transport.resume() }
            }
            stoppedClock = clock
        } catch {
            clock.start()
            try machine.start()
            throw error
        }
    }

    func resume() throws(HostError) {
        guard let machine, let parking else { return }
        stoppedClock?.start()
        stoppedClock = nil
        parking.release()
        self.parking = nil
        try machine.start()
    }

    func coreDump() throws -> @Sendable (_ path: String, _ goesOn: () -> Bool) throws -> Void {
        guard let machine else { throw MachineError("the machine is not there") }
        let dump = try CoreDump(machine.memory, machine.vcpus.map(\.cpu))
        return { try dump.write(to: $0, while: $1) }
    }

    // MARK: requests

    var deviceTree: DeviceTree? { machine?.tree }

    func pressPowerButton() { machine?.platform.eventDevice.notify(.powerButton) }
    func injectNMI() { machine?.injectNMI() }

    var files: [SandboxFile] {
        outline.devices.flatMap(\.spec.files)
            + devices.virtIO.flatMap { $0.handle?.files ?? [] }.map {
                .image($0.path, isReadOnly: $0.isReadOnly)
            }
    }

    var counters: JSONValue {
        .object(
            devices.virtIO.compactMap { entry in
                guard let handle = entry.handle, !handle.counters.isEmpty else { return nil }
                let values = handle.counters.map {
                    JSONValue.Member($0.name, .number("\($0.value)"))
                }
                return .init(entry.id, .object(values))
            })
    }

    func resizeDisk(
        _ id: String, to byteCount: UInt64, done: @escaping @Sendable (String?) -> Void
    ) throws(RequestFailure) {
        guard let entry = devices.virtIO.first(where: { $0.id == id }) else {
            throw RequestFailure(.unknownDevice, ["there is no device '\(id)'"])
        }
        let isAccepted = entry.handle?.resize(to: byteCount) { [io, device = entry.device] reason in
            if reason == nil {
                io.post { device.withValue { $0.configurationChanged?() } }
            }
            done(reason)
        }
        guard isAccepted == true else {
            throw RequestFailure(.invalid, ["'\(id)' is no disk whose size can change"])
        }
    }
}

// MARK: devices that come and go

extension BootedMachine {
    /// The buses; devices come and go on PCI alone.
    private func backplane() throws(RequestFailure) -> (Machine, PCIBackplane) {
        guard let machine, case .pci(let backplane) = machine.plugs else {
            throw RequestFailure(
                .unsupported, ["devices come and go on PCI, and the VM has transport=mmio"])
        }
        guard outline.hasACPI else {
            throw RequestFailure(
                .unsupported, ["devices come and go by ACPI, and the guest has acpi=off"])
        }
        return (machine, backplane)
    }

    func opener(
        ofNewIn configuration: inout MachineConfiguration
    ) throws -> @Sendable () throws -> OpenedDevice {
        let (_, backplane) = try backplane()
        let outline = try configuration.validate(.init(surroundings.system))
        let known = Set(devices.virtIO.map(\.id))
        let added = outline.devices.first {
            type(of: $0.spec).isHotpluggable && !known.contains($0.id)
        }
        guard let added else { throw MachineError("there is no new device") }
        if let number = added.spec.place.device,
            backplane.isTaken(segment: added.spec.place.segment ?? 0, device: number)
        {
            throw added.problem("pci_device_id", "\(number)", "another device has this place")
        }
        configuration.takeNames(outline)
        return devices.opener(of: added)
    }

    func plug(_ opened: OpenedDevice) throws -> PluggedDevice {
        let id = opened.id
        let address: PCIAddress
        do {
            let (_, backplane) = try backplane()
            address = try whileIOStands {
                try devices.add(opened)
                do {
                    guard let device = devices.virtIO.last else {
                        throw MachineError("\(id) is none that a bus takes")
                    }
                    return try backplane.plug(device)
                } catch {
                    // It is finished below.
                    _ = devices.take(id)
                    throw error
                }
            }
        } catch {
            opened.finish()
            throw error
        }
        devices.remember(address, of: id)
        machine?.platform.hotplug?.add(address)
        machine?.platform.eventDevice.notify(.pci)
        Log.info("\(id) comes to \(address)")
        return PluggedDevice(id: id, address: address)
    }

    func requestRemoval(of id: String) throws(RequestFailure) {
        guard let device = devices.virtIO.first(where: { $0.id == id }) else {
            throw RequestFailure(.unknownDevice, ["there is no device '\(id)'"])
        }
        let (machine, backplane) = try backplane()
        guard device.isRemovable, let address = backplane.address(of: id) else {
            throw RequestFailure(
                .failed, ["'\(id)' stays: disks, network interfaces and vsock come and go"])
        }
        requestedRemovals.insert(id)
        machine.platform.hotplug?.requestRemoval(of: address)
        machine.platform.eventDevice.notify(.pci)
    }

    func removeEjected(_ address: PCIAddress) throws -> PluggedDevice? {
        let (_, backplane) = try backplane()
        guard let id = backplane.device(at: address), requestedRemovals.remove(id) != nil else {
            return nil
        }
        let device = try whileIOStands {
            backplane.remove(id)
            return devices.take(id)
        }
        // What it has not written yet may take a while: not at the cost of other devices.
        device?.finish()
        Log.info("\(id) has gone from \(address)")
        return PluggedDevice(id: id, address: address)
    }

    func removeRequested() -> [PluggedDevice] {
        defer { requestedRemovals = [] }
        return requestedRemovals.sorted().compactMap { id in
            devices.take(id).map { device in
                device.finish()
                return PluggedDevice(
                    id: id,
                    address: PCIAddress(
                        segment: device.place.segment ?? 0, device: device.place.device ?? 0))
            }
        }
    }

    /// Does what nobody may do while the I/O loop runs.
    private func whileIOStands<Result>(_ body: () throws -> Result) throws -> Result {
        if parking != nil { return try body() }
        let parking = try Parking(io)
        defer { parking.release() }
        return try body()
    }
}
