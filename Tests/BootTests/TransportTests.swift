import Foundation
import Testing

/// A transport, a ring format and a kernel that use them.
struct Connection: CustomTestStringConvertible {
    let transport: String
    let ring: String
    let kernel: Kernel

    var testDescription: String { "\(transport), \(ring), \(kernel.testDescription)" }

    /// What a monitor does by default.
    static let standard = Connection(transport: "pci", ring: "split", kernel: .standard)
    /// Everything else than the standard. A test that takes turns with the two covers both.
    static let other = Connection(
        transport: "mmio", ring: "packed", kernel: Kernel(version: .debian12, format: .elf))

    /// Each other way there is, on one of the two kernels: `other` has the one that is missing.
    static let all = [
        Connection(
            transport: "pci", ring: "packed", kernel: Kernel(version: .debian12, format: .elf)),
        Connection(transport: "mmio", ring: "split", kernel: .standard),
        Connection(transport: "mmio", ring: "packed", kernel: .standard),
    ]
}

@Suite("Transports and rings", .guest)
struct TransportTests {
    /// Where sysfs has the features of the first disk: a digit for each bit.
    private static let features = "/sys/block/vda/device/features"
    private static let packedRing = 34

    @Test(
        "disk, network, console and entropy work over any of them, and after a reboot",
        arguments: Array(Connection.all.enumerated()))
    func devices(number: Int, connection: Connection) throws {
        let scratch = try Scratch()
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        let subnet = "192.168.\(100 + number)"
        // The first sector remembers the first life, the rest what it wrote.
        var boot = Boot(
            """
            life=$(head -c 512 /dev/vda | tr -d '\\0' | wc -l)
            say life "$life"
            say features "$(cat \(Self.features))"
            say pci "$(ls /sys/bus/pci/devices 2>/dev/null | wc -l)"
            say mmio "$(ls -d /sys/bus/platform/devices/LNRO0005:* 2>/dev/null | wc -l)"
            say virtio "$(ls /sys/bus/virtio/devices | wc -l)"
            say ping "$(ping -c 3 -W 5 \(subnet).1 | grep -c 'bytes from')"
            say random "$(head -c 8 /dev/hwrng | wc -c)"
            echo "console of life $life" >/dev/hvc0
            if [ "$life" = 0 ]; then
                head -c 524288 /dev/urandom | dd of=/dev/vda bs=64k seek=1 conv=fsync 2>/dev/null
                echo life | dd of=/dev/vda conv=fsync 2>/dev/null
                touch /do-reboot
            fi
            say content "$(dd if=/dev/vda bs=64k skip=1 2>/dev/null | sha256sum)"
            """)
        boot.kernel = connection.kernel
        boot.cpus = "boot=2"
        boot.kernelWords = ["swiftlet.ip=\(subnet).2/24"]
        boot.console = "file=\(scratch("console"))"
        boot.options = [
            "--platform", "transport=\(connection.transport),ring=\(connection.ring)",
            "--disk", "path=\(disk),image_type=raw",
            "--net", "tap=swl-ring\(number),ip=\(subnet).1,mask=255.255.255.0",
        ]
        let guest = try boot.start(scratch)
        try guest.wait(for: "swiftlet-guest: exit ", times: 2)

        #expect(try guest.waitForExit() == 0)
        #expect(guest.all("life") == ["0", "1"])
        #expect(guest.all("ping") == ["3", "3"])
        #expect(guest.all("random") == ["8", "8"])
        // The console, the disk, the network and the entropy source.
        #expect(guest.all("virtio") == ["4", "4"])
        #expect(guest.all("mmio") == (connection.transport == "mmio" ? ["4", "4"] : ["0", "0"]))
        #expect(guest.all("pci") == (connection.transport == "mmio" ? ["0", "0"] : ["5", "5"]))
        let packed = try Array(guest.told("features"))[Self.packedRing]
        #expect(packed == (connection.ring == "packed" ? "1" : "0"))
        let contents = Set(guest.all("content"))
        let stored = try HostCommand.run("sh", "-c", "tail -c +65537 \(disk) | sha256sum")
        #expect(contents.count == 1 && contents.first?.prefix(64) == stored.prefix(64))
        #expect(try scratch.text("console").contains("console of life 1"))
    }

    @Test("without ACPI the command line tells where the devices are, before init's own words")
    func withoutACPI() throws {
        var boot = Boot("say cmdline \"$(cat /proc/cmdline)\"")
        boot.kernel = Kernel(version: .generic, format: .elf)
        boot.kernelWords = ["acpi=off", "--", "mine"]
        boot.options = ["--platform", "transport=mmio"]
        let guest = try boot.start(Scratch())
        try guest.wait(for: "swiftlet-guest: exit 0")
        guest.process.send(SIGTERM)

        #expect(try guest.waitForExit() == 0)
        let line = boot.commandLine.replacing(
            " --", with: " virtio_mmio.device=4K@0xc0001000:5 --")
        #expect(try guest.told("cmdline") == line)
    }

    @Test("more devices than there are interrupts are a mistake that says so")
    func tooMany() throws {
        var boot = Boot()
        let scratch = try Scratch()
        boot.options = ["--platform", "transport=mmio", "--disk"]
        for number in 0..<17 {
            boot.options.append("path=\(try scratch.sparseFile("disk\(number)", bytes: 4096))")
        }
        let guest = try boot.start(scratch)

        #expect(try guest.waitForExit() != 0)
        #expect(guest.errors.text.contains("18 devices need an interrupt each, and there are 17"))
    }
}
