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
    /// In the order in which the user gave them.
    package var devices: [any DeviceSpec] = []
    package var rateLimitGroups: [RateLimitGroup] = []

    package init() {}

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
        problems += groupProblems()
        let outlined = outlineDevices(&problems)
        let boot = cpus.boot ?? 1
        let topology = CPUTopology(vcpuCount: max(boot, cpus.maximum ?? boot))
        guard problems.isEmpty, let kernel, let layout, let topology else {
            throw ConfigurationError(problems)
        }
        return MachineOutline(
            kernel: kernel, initramfs: initramfs, commandLine: commandLine,
            bootVCPUs: Int(boot), maximumVCPUs: Int(cpus.maximum ?? boot), topology: topology,
            allowsNesting: cpus.allowsNesting ?? true, layout: layout,
            usesHugePages: memory.usesHugePages ?? true, devices: outlined,
            rateLimitGroups: rateLimitGroups)
    }

    private func groupProblems() -> [ConfigurationProblem] {
        var names: Set<String> = []
        return rateLimitGroups.flatMap { group in
            guard names.insert(group.id).inserted else {
                return [
                    ConfigurationProblem(
                        option: "\(RateLimitGroup.option) id", value: group.id,
                        reason: "another group has this name")
                ]
            }
            return group.problems()
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

    /// Adds the standard devices, names all, and checks that names and places are unique.
    private func outlineDevices(_ problems: inout [ConfigurationProblem]) -> [MachineOutline.Device]
    {
        var outlined: [MachineOutline.Device] = []
        var serial = 0
        for type in DeviceCatalog.all {
            var specs = devices.filter { Swift.type(of: $0) == type }
            if specs.isEmpty, let standard = standardDevice(type) { specs = [standard] }
            for spec in specs {
                problems += spec.problems()
                let name = type.isRepeatable ? "_\(type.word)\(serial)" : "__\(type.word)"
                if type.isRepeatable { serial += 1 }
                outlined.append(MachineOutline.Device(id: spec.id ?? name, spec: spec))
            }
        }
        problems += terminalProblems(outlined) + uniquenessProblems(outlined)
        return outlined
    }

    /// A console that nobody asked for leaves the terminal to a serial port that was asked for.
    private func standardDevice(_ type: any DeviceSpec.Type) -> (any DeviceSpec)? {
        guard let standard = type.standard else { return nil }
        let isTaken = devices.contains { $0.usesTerminal }
        return standard.usesTerminal && isTaken ? nil : standard
    }

    private func terminalProblems(_ devices: [MachineOutline.Device]) -> [ConfigurationProblem] {
        let users = devices.filter { $0.spec.usesTerminal }
        guard users.count > 1, let last = users.last else { return [] }
        return [
            ConfigurationProblem(
                option: Swift.type(of: last.spec).option, value: "tty",
                reason: "the terminal is taken by \(Swift.type(of: users[0].spec).option) already")
        ]
    }

    private func uniquenessProblems(_ devices: [MachineOutline.Device]) -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        var names: Set<String> = []
        var places: Set<UInt8> = []
        for device in devices {
            let option = Swift.type(of: device.spec).option
            func add(_ key: String, _ value: String, _ reason: String) {
                problems.append(
                    ConfigurationProblem(option: "\(option) \(key)", value: value, reason: reason))
            }
            if !names.insert(device.id).inserted {
                add("id", device.id, "another device has this name")
            }
            if device.spec.id?.hasPrefix("__") == true {
                add("id", device.id, "names that begin with __ are the monitor's own")
            }
            guard let place = device.spec.pciDevice else { continue }
            if !(1...31).contains(place) {
                add("pci_device_id", "\(place)", "expected 1 to 31; 0 is the host bridge")
            } else if !places.insert(place).inserted {
                add("pci_device_id", "\(place)", "another device has this place")
            }
        }
        return problems
    }
}
