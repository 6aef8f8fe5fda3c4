import VMMBase
import VMMDevices
import VMMHost

// The devices of a machine: their names, their places, and those that come and go.

extension MachineConfiguration {
    /// Adds the standard devices, names all, and checks that names and places are unique.
    func outlineDevices(_ problems: inout [ConfigurationProblem]) -> [MachineOutline.Device] {
        var outlined: [MachineOutline.Device] = []
        var taken = Set(devices.compactMap(\.id))
        var number = 0
        for type in DeviceCatalog.all {
            var specs = devices.filter { Swift.type(of: $0) == type }
            if specs.isEmpty, let standard = standardDevice(type) { specs = [standard] }
            for (index, spec) in specs.enumerated() {
                problems += spec.problems().map { $0.at(index) }
                let id = spec.id ?? Self.name(type, number, &taken)
                if type.isHotpluggable { number += 1 }
                outlined.append(MachineOutline.Device(id: id, spec: spec, index: index))
            }
        }
        problems += terminalProblems(outlined) + uniquenessProblems(outlined)
        problems += outlined.flatMap { placeProblems($0, among: outlined) }
        return outlined
    }

    /// The first name from this number on that nobody has. The numbers go through all kinds.
    private static func name(
        _ type: any DeviceSpec.Type, _ number: Int, _ taken: inout Set<String>
    ) -> String {
        guard type.isHotpluggable else { return "__\(type.word)" }
        var number = number
        while !taken.insert("_\(type.word)\(number)").inserted { number += 1 }
        return "_\(type.word)\(number)"
    }

    /// A console that nobody asked for leaves the terminal to a serial port that was asked for.
    func standardDevice(_ type: any DeviceSpec.Type) -> (any DeviceSpec)? {
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

    /// Names stand in events, in the log and in sentences.
    private static func isName(_ id: String) -> Bool {
        (1...64).contains(id.utf8.count) && id.utf8.allSatisfy { (0x20..<0x7f).contains($0) }
    }

    private func uniquenessProblems(_ devices: [MachineOutline.Device]) -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        var names: Set<String> = []
        for device in devices {
            if !names.insert(device.id).inserted {
                var problem = device.problem("id", device.id, "another device has this name")
                problem.isConflict = true
                problems.append(problem)
            }
            if let id = device.spec.id, !Self.isName(id) {
                problems.append(
                    device.problem("id", "", "expected 1 to 64 printable ASCII characters"))
            }
            if device.spec.id?.hasPrefix("__") == true {
                problems.append(
                    device.problem(
                        "id", device.id, "names that begin with __ are the monitor's own"))
            }
            let type = Swift.type(of: device.spec)
            if !type.isRepeatable, device.index > 0 {
                problems.append(device.problem("", "", "there can be one alone"))
            }
        }
        return problems
    }

    private func placeProblems(
        _ device: MachineOutline.Device, among devices: [MachineOutline.Device]
    ) -> [ConfigurationProblem] {
        let place = device.spec.place
        func problem(_ key: String, _ value: some Any, _ reason: String) -> [ConfigurationProblem] {
            [device.problem(key, "\(value)", reason)]
        }
        if platform.transport == .mmio {
            if type(of: device.spec) == PanicSpec.self {
                return problem("", "", "there is no PCI bus with transport=mmio")
            }
            let given =
                place.device.map { ("pci_device_id", Int($0)) }
                ?? place.segment.flatMap { $0 == 0 ? nil : ("pci_segment", Int($0)) }
            guard let given else { return [] }
            return problem(given.0, given.1, "there is no PCI bus with transport=mmio")
        }
        let segment = place.segment ?? 0
        let count = platform.segmentCount ?? 1
        guard segment < count else {
            return problem(
                "pci_segment", segment, "expected 0 to \(count - 1), by num_pci_segments")
        }
        guard let number = place.device else { return [] }
        let lowest = segment == 0 ? 1 : 0
        guard (lowest...31).contains(Int(number)) else {
            return problem(
                "pci_device_id", number,
                "expected \(lowest) to 31" + (lowest == 1 ? "; 0 is the host bridge" : ""))
        }
        let first = devices.first {
            $0.spec.place.device == number && $0.spec.place.segment ?? 0 == segment
        }
        guard first?.id == device.id else {
            return problem("pci_device_id", number, "another device has this place")
        }
        return []
    }
}

// MARK: devices that come and go

extension MachineConfiguration {
    /// Takes one device more. Of a kind that there can be only one of, there must be none.
    package mutating func add(_ addition: DeviceAddition) throws {
        let type = addition.type
        guard type.isRepeatable || !devices.contains(where: { Swift.type(of: $0) == type }) else {
            throw RequestFailure(.failed, ["there is a \(type.word) device already"])
        }
        try add(addition.text)
        descriptors += addition.descriptors
    }

    /// Forgets the device of this name, also one that got it at the boot; false when there is none.
    package mutating func removeDevice(_ id: String) -> Bool {
        guard let index = devices.firstIndex(where: { $0.id == id }) else { return false }
        let type = Swift.type(of: devices[index])
        let ordinal = devices[..<index].count { Swift.type(of: $0) == type }
        let numbers = Set(devices[index].descriptorNumbers)
        devices.remove(at: index)
        removeOption(type.option, ordinal)
        descriptors.removeAll { numbers.contains($0.rawValue) }
        return true
    }
}

extension MachineOutline.Device {
    /// A mistake in what the user said of the device.
    func problem(_ key: String, _ value: String, _ reason: String) -> ConfigurationProblem {
        let option = type(of: spec).option
        return ConfigurationProblem(
            option: key.isEmpty ? option : "\(option) \(key)", value: value, reason: reason
        ).at(index)
    }
}
