import VMMBase
import VMMBus
import VMMDevices
import VMMFirmware
import VMMHost
import VMMVirtIO

/// Turns an outline into a machine that stands before its first instruction.
struct MachineBuilder {
    let outline: MachineOutline
    let system: KVMSystem
    let payload: Payload
    let devices: DeviceSet
    let loop: EventLoop
    let clock: any HostClock
    let events: EventMonitor?
    let guestLog: GuestLog
    let notify: @Sendable (MachineEvent) -> Void

    func build() throws -> Machine {
        let vm = try system.makeVirtualMachine()
        // Memory first: after the irqchip the same call is fifty times slower.
        let memory = try attachMemory(vm)
        // Files come into memory while the rest is built: that takes most of the time.
        let plan = try plan()
        let loading = ParallelLoader(pieces(of: plan), into: memory).start()
        defer { loading.end() }
        for blob in plan.blobs where !memory.copyIn(blob.bytes, at: blob.address) {
            throw MachineError("boot data at \(blob.address) lies outside memory")
        }
        try vm.prepareX86()
        let router = InterruptRouter(vm: vm, limiter: guestLog.devices)
        let platform = try Platform(
            Platform.Parts(
                layout: outline.layout, router: router,
                segments: outline.segments,
                hasConfigurationPorts: outline.needsConfigurationPorts, serial: devices.serial,
                debugConsole: devices.debugConsole, loop: loop, clock: clock, guestLog: guestLog,
                notify: notify))
        devices.serialPort.connect(platform.uart)
        // The chip of an earlier life may have held the input back.
        devices.serial?.setInputPaused(false)
        let plugs = try plug(platform, memory, router)
        let vcpus = try makeVCPUs(vm, platform, plan.registers)
        try loading.finish()
        return Machine(vm, memory: memory, vcpus: vcpus, plugs: plugs, platform: platform)
    }

    /// What the host refuses here is a size that it cannot give.
    private func attachMemory(_ vm: KVMVirtualMachine) throws(ConfigurationProblem) -> GuestMemory {
        do throws(HostError) {
            let memory = try GuestMemory(
                ranges: outline.layout.ramRanges, usesHugePages: outline.usesHugePages)
            try vm.attach(memory)
            return memory
        } catch {
            throw MemorySpec.problem(
                outline.layout.ramBytes, "the host does not give it: \(error)")
        }
    }

    // MARK: boot

    private func plan() throws -> BootPlan {
        let commandLine = try commandLine()
        let planner = BootPlanner(layout: outline.layout, tables: try tables())
        do throws(BootError) {
            return try planner.plan(
                kernel: payload.image, initramfsBytes: payload.initramfsByteCount,
                commandLine: commandLine)
        } catch {
            throw problem(error)
        }
    }

    private func pieces(of plan: BootPlan) -> [ParallelLoader.Piece] {
        plan.fileLoads.compactMap { load in
            (load.source == .kernel ? payload.kernel : payload.initramfs).map { file in
                ParallelLoader.Piece(
                    file: file, offset: load.fileOffset, count: load.byteCount,
                    address: load.address)
            }
        }
    }

    /// The planner knows what does not fit; the user wants to know which option said so.
    private func problem(_ error: BootError) -> ConfigurationProblem {
        let (option, value) =
            switch error {
            case .commandLineTooLong, .commandLineHasNUL: ("--cmdline", "")
            case .segmentOutsideRAM, .kernelOverlapsTable: ("--kernel", outline.kernel)
            case .initramfsTooLarge: ("--initramfs", outline.initramfs ?? "")
            }
        return ConfigurationProblem(option: option, value: value, reason: "\(error)")
    }

    private func tables() throws -> [GuestBlob] {
        let layout = outline.layout
        let processors = (0..<outline.maximumVCPUs).map { index in
            ACPIProcessor(
                apicID: outline.topology.apicID(vcpu: UInt32(index)),
                isEnabled: index < outline.bootVCPUs)
        }
        var acpi = ACPIConfiguration(
            processors: processors, pciSegments: outline.segments,
            virtIODevices: try registerPlaces(), hasSerial: devices.serial != nil,
            eventDevice: VMMFirmware.GenericEventDevice(
                register: layout.registers(of: .genericEvent)))
        if !outline.segments.isEmpty {
            acpi.hotplugRegisters = layout.registers(of: .pciHotplug)
        }
        let smbios = try SMBIOS().build()
        let end = smbios.address.rawValue + UInt64(smbios.bytes.count)
        let mp = MPTable.build(
            apicIDs: processors.prefix(outline.bootVCPUs).map(\.apicID),
            at: GuestAddress((end + 15) & ~15))
        return [try ACPITables.build(acpi), smbios] + (mp.map { [$0] } ?? [])
    }

    // MARK: processors

    private func makeVCPUs(
        _ vm: KVMVirtualMachine, _ platform: Platform, _ registers: BootRegisters
    ) throws -> [VirtualCPU] {
        let supported = try system.supportedCPUID().map { CPUIDEntry($0) }
        // Bit 8: the TSC runs at one rate in all power states.
        let hasInvariantTSC = supported.contains { $0.leaf == 0x8000_0007 && $0.edx & 1 << 8 != 0 }
        let surroundings = VirtualCPU.Surroundings(
            ports: platform.ports, memory: platform.memory,
            endOfInterrupt: { [ioapic = platform.ioapic] in ioapic.endOfInterrupt(vector: $0) },
            notify: notify)
        return try (0..<outline.bootVCPUs).map { index in
            let id = outline.topology.apicID(vcpu: UInt32(index))
            let cpu = try vm.makeVirtualCPU(id: id)
            var policy = CPUIDPolicy(
                topology: outline.topology,
                maximumPhysicalAddressBits: UInt32(outline.layout.physicalAddressBits),
                tscKHz: hasInvariantTSC ? cpu.tscKHz : nil, host: CPUIDEntry.host)
            policy.allowsNesting = outline.allowsNesting
            try cpu.prepareX86(
                cpuid: policy.entries(supported: supported, apicID: id),
                registers: index == 0 ? registers : nil,
                needsX2APIC: outline.needsExtendedAPICIDs)
            return VirtualCPU(cpu, hasOwnCore: outline.coreScheduling == .processor, surroundings)
        }
    }
}

/// A machine that cannot be made, in one sentence.
struct MachineError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}
