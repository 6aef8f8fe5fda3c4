import Glibc
import Testing

@Suite("Kernels and boot protocols", .guest)
struct BootMatrixTests {
    @Test("a kernel boots to init with its command line", arguments: Kernel.all)
    func boots(kernel: Kernel) throws {
        var boot = Boot(
            """
            say release "$(uname -r)"
            say cmdline "$(cat /proc/cmdline)"
            say script "$0"
            """)
        boot.kernel = kernel
        boot.kernelWords = ["swiftlet.word=\"two words\"", "swiftlet.other=1"]

        let guest = try boot.run()

        #expect(try guest.told("release") == kernel.release)
        #expect(try guest.told("cmdline") == boot.commandLine)
        #expect(try guest.told("script") == "/test.sh")
    }

    @Test("a guest without ACPI boots by its MP table", arguments: [1, 2])
    func withoutACPI(cpus: Int) throws {
        var boot = Boot(
            """
            say cpus "$(nproc)"
            say acpi "$(ls /sys/firmware/acpi 2>/dev/null | wc -l)"
            say clock "$(cat /proc/interrupts | grep -c IO-APIC)"
            say pci "$(ls /sys/bus/pci/devices | wc -l)"
            """)
        boot.kernel = Kernel(version: .generic, format: .elf)
        boot.kernelWords = ["acpi=off"]
        boot.cpus = "boot=\(cpus)"
        let guest = try boot.start(Scratch())
        try guest.wait(for: "swiftlet-guest: exit 0")
        // It has no way to power off: the guest resets the machine, and begins anew.
        try guest.wait(for: "swiftlet-guest: init", times: 2)
        guest.process.send(SIGTERM)

        #expect(try guest.waitForExit() == 0)
        #expect(try guest.number("cpus") == cpus)
        #expect(try guest.number("acpi") == 0)
        #expect(try guest.number("clock") > 0)
        #expect(try guest.number("pci") == 2, "the host bridge and the entropy source")
    }

    @Test(
        "PCI configuration goes through ECAM, or through ports for a kernel that may not use it",
        arguments: [("", 0), ("pci=nommconf", 1)])
    func configurationAccess(words: String, ports: Int) throws {
        var boot = Boot(
            """
            say ports "$(grep -c 'PCI conf1' /proc/ioports)"
            say pci "$(ls /sys/bus/pci/devices | wc -l)"
            head -c 16 /dev/hwrng >/dev/null || fail hwrng
            """)
        boot.kernelWords = [words]

        let guest = try boot.run()

        #expect(try guest.number("ports") == ports)
        #expect(try guest.number("pci") == 2)
    }
}
