import Testing
import VMMBase
import VMMDevices
import VMMHost

@testable import VMMMachine

@Suite("MachineConfiguration, devices that come and go")
struct MachineConfigurationDevicesTests {
    private static let limits = MachineConfiguration.HostLimits(
        maximumVCPUs: 4, physicalAddressBits: 46)

    private func configuration(_ words: String) throws -> MachineConfiguration {
        try CommandLineArguments(("--kernel /k " + words).split(separator: " ").map(String.init))
            .configuration
    }

    private func json(_ text: String) throws -> JSONValue { try JSONParser.parse(Array(text.utf8)) }

    private func disk(_ text: String) throws -> DeviceAddition {
        try .disk(json(text), [])
    }

    /// As a boot leaves it: with all names.
    private func booted(_ words: String) throws -> MachineConfiguration {
        var configuration = try configuration(words)
        configuration.takeNames(try configuration.validate(Self.limits))
        return configuration
    }

    private func ids(_ configuration: MachineConfiguration) throws -> [String] {
        try configuration.validate(Self.limits).devices.map(\.id).filter { !$0.hasPrefix("__") }
    }

    /// Whether each of the devices was there to be removed.
    private func removed(_ ids: [String], from configuration: inout MachineConfiguration) -> [Bool]
    {
        var result: [Bool] = []
        for id in ids { result.append(configuration.removeDevice(id)) }
        return result
    }

    /// The disks, as they are told.
    private func paths(_ configuration: MachineConfiguration) -> [String] {
        guard case .array(let disks) = configuration.json["disks"] else { return [] }
        return disks.compactMap { disk in
            guard case .string(let path) = disk["path"] else { return nil }
            return path
        }
    }

    @Test("names stay when other devices go, and are given again")
    func names() throws {
        var machine = try booted("--disk path=/a path=/b --net tap=t --vsock cid=3,socket=/v")
        #expect(try ids(machine) == ["_disk0", "_disk1", "_net2", "_vsock3"])
        let first = removed(["_disk0"], from: &machine)
        #expect(first == [true])
        #expect(try ids(machine) == ["_disk1", "_net2", "_vsock3"])
        try machine.add(disk(#"{"path":"/c"}"#))
        #expect(try ids(machine) == ["_disk1", "_disk2", "_net2", "_vsock3"])
        let unknown = removed(["_disk9", "__rng"], from: &machine)
        #expect(unknown == [false, false])
        #expect(paths(machine) == ["/b", "/c"])
    }

    @Test("what has gone is not told any more")
    func told() throws {
        var machine = try booted("--disk path=/a path=/b,id=b --vsock cid=3,socket=/v")
        let both = removed(["b", "_vsock2"], from: &machine)
        #expect(both == [true, true])
        #expect(paths(machine) == ["/a"] && machine.json["vsock"] == nil)
    }

    @Test("there is one vsock device at most")
    func vsock() throws {
        var machine = try booted("--vsock cid=3,socket=/v")
        let another = try DeviceAddition.vsock(json(#"{"cid":4,"socket":"/w"}"#), [])
        let error = #expect(throws: RequestFailure.self) { try machine.add(another) }
        #expect(error?.kind == .failed && error?.chain == ["there is a vsock device already"])
        let gone = removed(["_vsock0"], from: &machine)
        #expect(gone == [true])
        try machine.add(another)
        #expect(try ids(machine) == ["_vsock0"])
    }

    @Test(
        "a device that is described wrongly",
        arguments: [
            (#"{}"#, "needs path="), (#"[]"#, "expected an object"),
            (#"{"path":1}"#, "path: expected a string"),
            (#"{"path":"/a","queue_size":"x"}"#, "queue_size: expected a number"),
            (#"{"path":"/a","vhost_user":true}"#, "vhost_user: is not supported yet"),
        ])
    func mistakes(text: String, expected: String) throws {
        let error = #expect(throws: ConfigurationError.self) { try disk(text) }
        let told = error?.problems.map(\.jsonDescription).joined() ?? ""
        #expect(told.contains(expected), "\(told)")
    }

    @Test("descriptors become a tap's, live with the device, and are for nothing else")
    func descriptors() throws {
        let files = try (0..<2).map { _ in try FileDescriptor.open("/dev/null", [.readOnly]) }
        let numbers = files.map(\.rawValue)
        var machine = try booted("")
        try machine.add(.network(json(#"{"num_queues":4,"fds":[-1,7]}"#), files))
        #expect(machine.devices.last?.descriptorNumbers == numbers)
        #expect(machine.descriptors.map(\.rawValue) == numbers)
        machine.takeNames(try machine.validate(Self.limits))
        let gone = removed(["_net0"], from: &machine)
        #expect(gone == [true] && machine.descriptors.isEmpty)

        let error = #expect(throws: RequestFailure.self) {
            try DeviceAddition.disk(json(#"{"path":"/a"}"#), files)
        }
        #expect(error?.chain == ["vm.add-disk takes no descriptors"])
        try machine.add(.network(json(#"{"num_queues":2}"#), files))
        let tooMany = #expect(throws: ConfigurationError.self) { try ids(machine) }
        #expect(tooMany?.description.contains("num_queues asks for 1 of them") == true)
    }

    @Test(
        "places on segments",
        arguments: [
            ("pci_segment=1,pci_device_id=0", ""), ("pci_segment=1,pci_device_id=5", ""),
            ("pci_segment=2", "expected 0 to 1"), ("pci_device_id=0", "0 is the host bridge"),
            ("pci_segment=1,pci_device_id=32", "expected 0 to 31"),
            ("pci_device_id=5", "another device has this place"),
        ])
    func places(options: String, expected: String) throws {
        let machine = try configuration(
            "--platform num_pci_segments=2 --rng src=/r,pci_device_id=5 --disk path=/a,\(options)")
        var told = ""
        do {
            _ = try machine.validate(Self.limits)
        } catch {
            told = error.description
        }
        #expect(expected.isEmpty ? told.isEmpty : told.contains(expected), "\(told)")
    }

    @Test("1 to 96 segments", arguments: [(1, true), (96, true), (0, false), (97, false)])
    func segments(count: Int, isRight: Bool) throws {
        let machine = try configuration("--platform num_pci_segments=\(count)")
        #expect((try? machine.validate(Self.limits).segments.count == count) ?? false == isRight)
    }

    @Test(
        "weights of segments",
        arguments: [
            ("pci_segment=1,mmio32_aperture_weight=3", ""),
            ("pci_segment=2", "pci_segment '2': expected 0 to 1"),
            ("pci_segment=0,mmio32_aperture_weight=0", "expected 1 or more"),
            ("pci_segment=0,mmio64_aperture_weight=0", "expected 1 or more"),
            ("pci_segment=0 pci_segment=0", "described twice"),
            ("pci_segment=0,mmio32_aperture_weight=4294967295", "of these weights"),
            ("mmio32_aperture_weight=1", "pci_segment"),
        ])
    func weights(options: String, expected: String) throws {
        var told = ""
        do {
            let machine = try configuration(
                "--platform num_pci_segments=2 --pci-segment \(options)")
            let segments = try machine.validate(Self.limits).segments
            #expect(segments[1].mmio32.count == 3 * segments[0].mmio32.count)
            // It comes back as it was said.
            let again = try MachineConfiguration(json: machine.json)
            #expect(again.json == machine.json)
            #expect(again.pciSegments.first?.lowWeight == 3)
        } catch {
            told = "\(error)"
        }
        #expect(expected.isEmpty ? told.isEmpty : told.contains(expected), "\(told)")
    }

    @Test("without PCI there are no segments to choose from")
    func memoryMapped() throws {
        let machine = try configuration("--platform transport=mmio --disk path=/a,pci_segment=1")
        #expect(throws: ConfigurationError.self) { try machine.validate(Self.limits) }
        let plain = try configuration("--platform transport=mmio --disk path=/a,pci_segment=0")
        #expect(try plain.validate(Self.limits).segments.isEmpty)
        let many = try configuration("--platform transport=mmio,num_pci_segments=2")
        #expect(throws: ConfigurationError.self) { try many.validate(Self.limits) }
    }
}
