import VMMBase
import VMMDevices
import VMMFirmware
import VMMHost

/// What the user asked for, however they said it.
package struct MachineConfiguration: Sendable {
    package var kernel: String?
    package var initramfs: String?
    package var commandLine = ""
    package var cpus = CPUSpec()
    package var memory = MemorySpec()
    package var platform = PlatformSpec()
    package var pciSegments: [PCISegmentSpec] = []
    /// In the order in which the user gave them.
    package var devices: [any DeviceSpec] = []
    package var rateLimitGroups: [RateLimitGroup] = []
    package var landlockRules: [LandlockRule] = []
    /// Whether the monitor is held to the machine's files; nil: as the command line says.
    package var isHeldToFiles: Bool?
    /// Descriptors that came with requests, for as long as devices are made of them.
    package var descriptors: [FileDescriptor] = []
    /// The options as they were given, which is what is told of the machine.
    package private(set) var options: [OptionText] = []

    package init() {}

    /// Takes one more option that has keys and values.
    package mutating func add(_ text: OptionText) throws(ConfigurationProblem) {
        let index = options.count { $0.option == text.option }
        do throws(ConfigurationProblem) {
            try decode(text)
        } catch {
            throw error.at(index)
        }
        options.append(text)
    }

    private mutating func decode(_ text: OptionText) throws(ConfigurationProblem) {
        switch text.option {
        case CPUSpec.option:
            cpus = try OptionDecoder.decode(CPUSpec.self, from: text, fields: CPUSpec.fields)
        case MemorySpec.option:
            memory = try OptionDecoder.decode(
                MemorySpec.self, from: text, fields: MemorySpec.fields)
        case PlatformSpec.option:
            platform = try OptionDecoder.decode(
                PlatformSpec.self, from: text, fields: PlatformSpec.fields)
        case PCISegmentSpec.option:
            pciSegments.append(
                try OptionDecoder.decode(
                    PCISegmentSpec.self, from: text, fields: PCISegmentSpec.fields))
        case RateLimitGroup.option:
            rateLimitGroups.append(
                try OptionDecoder.decode(
                    RateLimitGroup.self, from: text, fields: RateLimitGroup.fields))
        case LandlockRule.option:
            landlockRules.append(
                try OptionDecoder.decode(
                    LandlockRule.self, from: text, fields: LandlockRule.fields))
        default:
            guard let type = DeviceCatalog.all.first(where: { $0.option == text.option }) else {
                throw ConfigurationProblem(
                    option: text.option, value: "", reason: "unknown option; --help lists all")
            }
            devices.append(try type.parse(text))
        }
    }

    /// Keeps the names that devices got when the user gave none: they are told, and stay the same
    /// while other devices come and go.
    mutating func takeNames(_ outline: MachineOutline) {
        for device in outline.devices where type(of: device.spec).isHotpluggable {
            let type = type(of: device.spec)
            guard let place = place(ofOption: type.option, device.index),
                let index = devices.indices.filter({ Swift.type(of: devices[$0]) == type })
                    .dropFirst(device.index).first
            else { continue }
            options[place].setDefault("id", device.id)
            devices[index] = (try? type.parse(options[place])) ?? devices[index]
        }
    }

    /// Forgets one of several options of a kind.
    mutating func removeOption(_ option: String, _ ordinal: Int) {
        if let place = place(ofOption: option, ordinal) { options.remove(at: place) }
    }

    private func place(ofOption option: String, _ ordinal: Int) -> Int? {
        options.indices.filter { options[$0].option == option }.dropFirst(ordinal).first
    }

    /// What this host allows.
    package struct HostLimits: Sendable {
        package let maximumVCPUs: Int
        /// Width of the host's physical addresses.
        package let physicalAddressBits: Int

        package init(maximumVCPUs: Int, physicalAddressBits: Int) {
            self.maximumVCPUs = maximumVCPUs
            self.physicalAddressBits = physicalAddressBits
        }
    }

    /// The outline of the machine, or all mistakes at once.
    package func validate(_ limits: HostLimits) throws(ConfigurationError) -> MachineOutline {
        var problems = cpus.problems(hostMaximum: limits.maximumVCPUs)
        if kernel == nil {
            problems.append(
                ConfigurationProblem(
                    option: "--kernel", value: "", reason: "needed: the kernel to boot"))
        }
        // A width that cannot be is told above, and must not make the memory look wrong, too.
        let width = cpus.maximumPhysicalBits.flatMap {
            CPUSpec.addressBits.contains($0) ? Int($0) : nil
        }
        let bits = min(limits.physicalAddressBits, width ?? 46)
        let layout = layout(bits, &problems)
        let segments = segments(layout, &problems)
        problems += groupProblems()
        let outlined = outlineDevices(&problems)
        let boot = cpus.boot ?? 1
        let topology = CPUTopology(vcpuCount: max(boot, cpus.maximum ?? boot))
        guard problems.isEmpty, let kernel, let layout, let segments, let topology else {
            throw ConfigurationError(problems)
        }
        return MachineOutline(
            kernel: kernel, initramfs: initramfs, commandLine: commandLine,
            bootVCPUs: Int(boot), maximumVCPUs: Int(cpus.maximum ?? boot), topology: topology,
            allowsNesting: cpus.allowsNesting ?? true,
            coreScheduling: cpus.coreScheduling ?? .machine, layout: layout,
            usesHugePages: memory.usesHugePages ?? true, devices: outlined,
            rateLimitGroups: rateLimitGroups, transport: platform.transport ?? .pci,
            segments: segments, ring: platform.ring ?? .split)
    }

    private func segments(
        _ layout: GuestMemoryLayout?, _ problems: inout [ConfigurationProblem]
    ) -> [PCISegment]? {
        let before = problems.count
        let weights = PCISegmentSpec.weights(pciSegments, platform, &problems)
        guard let layout, problems.count == before else { return nil }
        do throws(ConfigurationProblem) {
            return try platform.segments(layout, weights)
        } catch {
            problems.append(error)
            return nil
        }
    }

    private func groupProblems() -> [ConfigurationProblem] {
        var names: Set<String> = []
        return rateLimitGroups.enumerated().flatMap { index, group in
            guard names.insert(group.id).inserted else {
                var problem = ConfigurationProblem(
                    option: "\(RateLimitGroup.option) id", value: group.id,
                    reason: "another group has this name")
                problem.isConflict = true
                return [problem.at(index)]
            }
            return group.problems().map { $0.at(index) }
        }
    }

    private func layout(
        _ bits: Int, _ problems: inout [ConfigurationProblem]
    ) -> GuestMemoryLayout? {
        do throws(GuestLayoutError) {
            return try GuestMemoryLayout(ramBytes: memory.byteCount, physicalAddressBits: bits)
        } catch {
            problems.append(memory.problem("\(error)"))
            return nil
        }
    }
}
