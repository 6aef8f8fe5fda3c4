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
    let notify: @Sendable (MachineEvent) -> Void

    func build() throws -> Machine {
        let vm = try system.makeVirtualMachine()
        // Memory first: after the irqchip the same call is fifty times slower.
        let memory = try attachMemory(vm)
        try vm.prepareX86()
        let router = InterruptRouter(vm: vm, clock: clock)
        let platform = try Platform(
            Platform.Parts(
                layout: outline.layout, router: router,
                hasConfigurationPorts: outline.needsConfigurationPorts, serial: devices.serial,
                debugConsole: devices.debugConsole, clock: clock, notify: notify))
        devices.serialPort.connect(platform.uart)
        // The chip of an earlier life may have held the input back.
        devices.serial?.setInputPaused(false)
        let transports = try plug(platform, memory, router, vm)
        let registers = try load(into: memory)
        let vcpus = try makeVCPUs(vm, platform, registers)
        return Machine(vcpus: vcpus, transports: transports, platform: platform)
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

    // MARK: devices

    private func plug(
        _ platform: Platform, _ memory: GuestMemory, _ router: InterruptRouter,
        _ vm: KVMVirtualMachine
    ) throws -> [VirtIOPCITransport] {
        let plug = VirtIOPCITransport.Plug(
            memoryBus: platform.memory, interrupts: router, doorbells: vm, loop: loop,
            memory: memory, clock: clock)
        var addresses = AddressAllocator(outline.layout.mmio64Window)
        var transports: [(VirtIOPCITransport, UInt8?)] = []
        for entry in devices.virtIO {
            let size = VirtIOPCITransport.barByteCount
            guard let bar = addresses.allocate(count: size, alignment: size) else {
                throw MachineError("no room for the registers of \(entry.id)")
            }
            let transport = try VirtIOPCITransport(
                entry.device, plug: plug, barAddress: bar.start)
            transports.append((transport, entry.place))
        }
        // Places that users asked for first, so that nobody else takes them.
        for (transport, place) in transports.filter({ $0.1 != nil })
            + transports.filter({ $0.1 == nil })
        {
            guard let address = platform.pci.attach(transport, device: place) else {
                throw MachineError("no place on the PCI bus for \(transport.id)")
            }
            Log.debug("\(transport.id) at \(address)")
        }
        return transports.map(\.0)
    }

    // MARK: boot

    private func load(into memory: GuestMemory) throws -> BootRegisters {
        let planner = BootPlanner(layout: outline.layout, tables: try tables())
        let plan: BootPlan
        do throws(BootError) {
            plan = try planner.plan(
                kernel: payload.image, initramfsBytes: payload.initramfsByteCount,
                commandLine: outline.commandLine)
        } catch {
            throw problem(error)
        }
        let pieces = plan.fileLoads.compactMap { load in
            (load.source == .kernel ? payload.kernel : payload.initramfs).map { file in
                ParallelLoader.Piece(
                    file: file, offset: load.fileOffset, count: load.byteCount,
                    address: load.address)
            }
        }
        try ParallelLoader(pieces, into: memory).run()
        for blob in plan.blobs where !memory.copyIn(blob.bytes, at: blob.address) {
            throw MachineError("boot data at \(blob.address) lies outside memory")
        }
        return plan.registers
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
        let segment = PCISegment(
            number: 0, ecam: GuestMemoryLayout.ecam, mmio32: GuestMemoryLayout.mmio32Hole,
            mmio64: layout.mmio64Window)
        let acpi = ACPIConfiguration(
            processors: processors, pciSegments: [segment], hasSerial: devices.serial != nil,
            eventDevice: VMMFirmware.GenericEventDevice(
                register: layout.registers(of: .genericEvent)))
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
            return VirtualCPU(cpu, surroundings)
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
