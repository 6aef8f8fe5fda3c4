import Testing
import VMMBase
import VMMDevices

@testable import VMMMachine

@Suite("MachineConfiguration")
struct MachineConfigurationTests {
    private static let limits = MachineConfiguration.HostLimits(
        maximumVCPUs: 64, physicalAddressBits: 46)

    private func configuration(_ line: String) throws -> MachineConfiguration {
        try CommandLineArguments(line.split(separator: " ").map(String.init)).configuration
    }

    /// The mistakes in a command line that names a kernel besides.
    private func mistakes(_ line: String) throws -> [String] {
        let configuration = try configuration("--kernel /k " + line)
        do throws(ConfigurationError) {
            _ = try configuration.validate(Self.limits)
            return []
        } catch {
            return error.problems.map(\.description)
        }
    }

    private func outline(_ line: String) throws -> MachineOutline {
        try configuration("--kernel /k " + line).validate(Self.limits)
    }

    // MARK: defaults

    @Test("a kernel is enough: one vCPU, 512 MiB, a serial line, a console and entropy")
    func defaults() throws {
        let outline = try outline("")
        #expect(outline.bootVCPUs == 1 && outline.maximumVCPUs == 1)
        #expect(outline.layout.ramBytes == 512 << 20)
        #expect(outline.allowsNesting && outline.usesHugePages)
        #expect(outline.devices.map(\.id) == ["__serial", "__console", "__rng"])
    }

    @Test("a console that nobody asked for leaves the terminal to the serial line")
    func terminalGoesToSerial() throws {
        #expect(try outline("--serial tty").devices.map(\.id) == ["__serial", "__rng"])
    }

    @Test("devices are on PCI with split rings unless the user says otherwise")
    func platform() throws {
        let standard = try outline("")
        let other = try outline("--platform transport=mmio,ring=packed")
        #expect(standard.transport == .pci && standard.ring == .split)
        #expect(other.transport == .mmio && other.ring == .packed)
    }

    @Test("there are no places on a bus that is not there")
    func placeWithoutBus() throws {
        #expect(
            try mistakes("--platform transport=mmio --rng src=/r,pci_device_id=9") == [
                "--rng pci_device_id '9': there is no PCI bus with transport=mmio"
            ])
    }

    @Test(
        "the monitor's words come behind the kernel's and before init's",
        arguments: [
            ("", "x y"), ("a", "a x y"), ("a -- b c", "a x y -- b c"), ("-- b", "x y -- b"),
            ("a=-- b", "a=-- b x y"),
        ])
    func insertedWords(line: String, expected: String) {
        #expect(MachineBuilder.inserting(["x", "y"], into: line) == expected)
    }

    @Test("17 devices have an interrupt without PCI, and 9 of them without ACPI, all different")
    func pins() {
        let all = Platform.virtIOPins(hasACPI: true)
        #expect(all.count == 17 && Set(all).count == 17 && all.allSatisfy { $0 < 24 })
        #expect(Platform.virtIOPins(hasACPI: false) == Array(all.prefix(9)))
        // The timer, keyboard, cascade, serial ports, clock and the generic event device.
        #expect(Set(all).isDisjoint(with: [0, 1, 2, 3, 4, 8, 13]))
    }

    @Test("devices have the catalogue's order, names of their own, and keep those they were given")
    func names() throws {
        let outline = try outline(
            "--net tap=t --disk path=/a path=/b,id=mine --rng src=/r,pci_device_id=9")
        #expect(
            outline.devices.map(\.id) == [
                "__serial", "__console", "_disk0", "mine", "_net2", "__rng",
            ])
        #expect(outline.devices.last?.spec.place.device == 9)
    }

    @Test("vCPUs may be fewer than the most")
    func processors() throws {
        let outline = try outline("--cpus boot=2,max=4")
        #expect(outline.bootVCPUs == 2 && outline.maximumVCPUs == 4)
        #expect(outline.topology.threadsPerPackage == 4)
    }

    @Test(
        "the ports of PCI configuration are there for a kernel that was told not to use ECAM",
        arguments: [
            ("", false), ("console=ttyS0 acpi=noirq", false), ("pci=noearly", false),
            ("xacpi=off notpci=conf1", false), ("quiet acpi=off", true),
            ("pci=noearly,nommconf", true), ("a\tpci=conf1 b", true), ("pci=noacpi", true),
        ])
    func configurationPorts(commandLine: String, expected: Bool) throws {
        var configuration = try configuration("--kernel /k")
        configuration.commandLine = commandLine
        let outline = try configuration.validate(Self.limits)
        #expect(outline.needsConfigurationPorts == expected)
    }

    // MARK: mistakes

    @Test("a machine without a kernel is told so")
    func noKernel() {
        let error = #expect(throws: ConfigurationError.self) {
            try MachineConfiguration().validate(Self.limits)
        }
        #expect(error?.description == "--kernel: needed: the kernel to boot")
    }

    @Test(
        "one mistake is one line",
        arguments: [
            ("--cpus boot=0", "--cpus boot '0': at least 1"),
            ("--cpus boot=65", "--cpus boot '65': at most 64 on this host"),
            ("--cpus boot=4,max=2", "--cpus max '2': at least boot, which is 4"),
            ("--cpus max=65", "--cpus max '65': at most 64 on this host"),
            ("--cpus boot=4294967295", "--cpus boot '4294967295': at most 64 on this host"),
            (
                "--memory size=0",
                "--memory size '0': memory of 0 bytes is too small; the least is "
                    + "1052672 bytes"
            ),
            (
                "--memory size=1K",
                "--memory size '1K': memory of 1024 bytes is not a multiple of "
                    + "4096 bytes"
            ),
            (
                "--console tty --serial tty",
                "--console 'tty': the terminal is taken by --serial "
                    + "already"
            ),
            (
                "--disk path=/a,id=\u{1b}x",
                "--disk id: expected 1 to 64 printable ASCII characters"
            ),
            (
                "--disk path=/a,id=\(String(repeating: "x", count: 65))",
                "--disk id: expected 1 to 64 printable ASCII characters"
            ),
            ("--disk path=/a,id=x path=/b,id=x", "--disk id 'x': another device has this name"),
            (
                "--disk path=/a,id=_disk1 path=/b,id=_disk1",
                "--disk id '_disk1': another device has this "
                    + "name"
            ),
            (
                "--disk path=/a,id=__x",
                "--disk id '__x': names that begin with __ are the "
                    + "monitor's own"
            ),
            (
                "--disk path=/a,pci_device_id=0",
                "--disk pci_device_id '0': expected 1 to 31; 0 is "
                    + "the host bridge"
            ),
            (
                "--disk path=/a,pci_device_id=32",
                "--disk pci_device_id '32': expected 1 to 31; 0 "
                    + "is the host bridge"
            ),
            (
                "--disk path=/a,pci_device_id=5 --rng src=/r,pci_device_id=5",
                "--rng pci_device_id "
                    + "'5': another device has this place"
            ),
            (
                "--disk path=/a,queue_size=5",
                "--disk queue_size '5': expected a power of two from "
                    + "4 to 1024"
            ),
        ])
    func mistake(line: String, expected: String) throws {
        #expect(try mistakes(line) == [expected])
    }

    @Test(
        "memory that the address space does not hold is too large",
        arguments: [
            "--memory size=65536G", "--memory size=17179869183G",
            "--memory size=64G --cpus max_phys_bits=36",
        ])
    func memoryTooLarge(line: String) throws {
        let found = try mistakes(line)
        #expect(found.count == 1)
        #expect(found.first?.contains("is too large; with") == true)
    }

    @Test(
        "an address width that no CPU has is a mistake of that option alone",
        arguments: [0, 35, 53, 255])
    func addressWidth(bits: Int) throws {
        #expect(
            try mistakes("--cpus max_phys_bits=\(bits)") == [
                "--cpus max_phys_bits '\(bits)': expected 36 to 52"
            ])
    }

    @Test("all mistakes are told at once")
    func allAtOnce() throws {
        let configuration = try configuration(
            "--cpus boot=0 --memory size=1K --serial tty --console tty"
                + " --disk path=/a,id=x,queue_size=5 path=/b,id=x,pci_device_id=0")
        let error = #expect(throws: ConfigurationError.self) {
            try configuration.validate(Self.limits)
        }
        // No kernel, boot, size, the terminal, the queue's size, the name and the place.
        #expect(error?.problems.count == 7)
    }

    @Test("an error is never empty, however many vCPUs the host may have")
    func neverEmpty() throws {
        // A package holds 32768 vCPUs, the most that an APIC id has room for.
        let limits = MachineConfiguration.HostLimits(
            maximumVCPUs: 1 << 20, physicalAddressBits: 46)
        let configuration = try configuration("--kernel /k --cpus boot=32769")
        let error = #expect(throws: ConfigurationError.self) { try configuration.validate(limits) }
        #expect(error?.problems.isEmpty == false)
    }
}
