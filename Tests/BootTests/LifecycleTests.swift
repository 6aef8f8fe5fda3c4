import Foundation
import Testing

@Suite("Life and death", .guest)
struct LifecycleTests {
    /// How Linux resets the machine. `t` is the triple fault; without a word it is the reset
    /// register of ACPI's FADT.
    @Test("a reboot begins anew with disk and network", arguments: ["k", "t", "", "p"])
    func reboot(method: String) throws {
        let scratch = try Scratch()
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        let number = 210 + (["k", "t", "", "p"].firstIndex(of: method) ?? 4)
        let subnet = "192.168.\(number)"
        // The disk remembers the first life.
        var boot = Boot(
            """
            life=$(tr -d '\\0' </dev/vda | wc -l)
            say life "$life"
            say cpus "$(nproc)"
            say ping "$(ping -c 1 -W 5 \(subnet).1 | grep -c 'bytes from')"
            say random "$(head -c 8 /dev/hwrng | wc -c)"
            echo "life $life" | dd of=/dev/vda bs=512 seek="$life" conv=fsync 2>/dev/null
            [ "$life" != 0 ] || touch /do-reboot
            """)
        boot.cpus = "boot=2"
        boot.kernelWords = [
            "swiftlet.ip=\(subnet).2/24", "reboot=" + (method.isEmpty ? "a" : method),
        ]
        boot.options = [
            "--disk", "path=\(disk),image_type=raw", "--net",
            "tap=swl-boot\(number),ip=\(subnet).1,mask=255.255.255.0",
            "--event-monitor", "path=\(scratch("events"))",
        ]
        let guest = try boot.start(scratch)
        try guest.wait(for: "swiftlet-guest: exit ", times: 2)

        #expect(try guest.waitForExit() == 0)
        #expect(guest.all("life") == ["0", "1"])
        #expect(guest.all("cpus") == ["2", "2"])
        #expect(guest.all("ping") == ["1", "1"])
        #expect(guest.all("random") == ["8", "8"])
        #expect(try scratch.text("disk").hasPrefix("life 0\n"))
        #expect(try !Bed.interfaces.contains("swl-boot\(number)"))
        let events = try scratch.events("events")
        #expect(
            events.filter { !$0.hasPrefix("virtio-device") } == [
                "vmm starting", "vm booting", "vm booted", "vm rebooting", "vm shutdown",
                "vm booting", "vm booted", "vm rebooted", "vm shutdown", "vm deleted",
                "vmm shutdown",
            ])
        for id in ["_disk0", "_net1", "__rng"] {
            #expect(events.count { $0 == "virtio-device activated \(id)" } == 2, "\(events)")
        }
    }

    @Test("a signal ends the monitor and leaves nothing behind", arguments: [SIGTERM, SIGINT])
    func signals(signal: Int32) throws {
        let scratch = try Scratch()
        var boot = Boot(
            """
            (exec >/dev/hvc0; echo ready)
            while true; do :; done
            """)
        boot.serial = "socket=\(scratch("socket"))"
        boot.console = "tty"
        boot.onTerminal = true
        boot.cpus = "boot=2"
        boot.options = ["--net", "tap=swl-sig\(signal)"]
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready")
        #expect(guest.terminalSettings != guest.firstSettings)
        #expect(scratch.exists("socket"))
        #expect(try Bed.interfaces.contains("swl-sig\(signal)"))

        guest.process.send(signal)

        #expect(try guest.waitForExit(within: 30) == 0)
        #expect(guest.terminalSettings == guest.firstSettings)
        #expect(!scratch.exists("socket"))
        #expect(try !Bed.interfaces.contains("swl-sig\(signal)"))
    }

    @Test("a vCPU that cannot run on ends the monitor with a message")
    func failure() throws {
        let scratch = try Scratch()
        let kernel = try scratch.file("kernel", Self.kernel(Self.jumpToNowhere))
        let words = [
            try Bed.monitor, "--kernel", kernel, "--serial",
            "socket=\(scratch("socket"))", "--console", "off", "--net", "tap=swl-fail",
            "--event-monitor", "path=\(scratch("events"))",
        ]
        let guest = try Guest(words, in: scratch)

        #expect(try guest.waitForExit() == 1)
        let lines = guest.errors.text.split(separator: "\n")
        #expect(lines.count == 1)
        #expect(lines.first?.contains("vCPU 0") == true, "\(lines)")
        #expect(
            try scratch.events("events") == [
                "vmm starting", "vm booting", "vm booted", "vm shutdown", "vm failed",
                "vm deleted", "vmm shutdown",
            ])
        #expect(!scratch.exists("socket"))
        #expect(try !Bed.interfaces.contains("swl-fail"))
    }

    @Test("a guest that KVM cannot run on ends alone where the monitor is to stay")
    func outlivedCrash() throws {
        let scratch = try Scratch()
        let kernel = try scratch.file("kernel", Self.kernel(Self.jumpToNowhere))
        let socket = scratch("api")
        let words = [
            try Bed.monitor, "--kernel", kernel, "--console", "off", "--serial", "null",
            "--no-shutdown", "--api-socket", "path=\(socket)", "--event-monitor",
            "path=\(scratch("events"))",
        ]
        let guest = try Guest(words, in: scratch)
        let api = API(socket: socket)
        let deadline = Date(timeIntervalSinceNow: Guest.patience)
        while (try? api.state()) != "Created", Date() < deadline {
            Thread.sleep(forTimeInterval: 1)
        }
        #expect(try api.put("vm.boot") == 204)
        #expect(try api.put("vmm.shutdown") == 200)

        #expect(try guest.waitForExit() == 0)
        #expect(guest.errors.text.contains("ERROR -- vCPU 0"))
        #expect(try scratch.events("events").contains("vm failed"))
    }

    @Test("reboots leave no descriptors, memory or threads behind")
    func rebootsLeakNothing() throws {
        let scratch = try Scratch()
        // Says "x" on the debug console, resets through the i8042, waits for its end.
        let code: [UInt8] = [0xb0, 0x78, 0xe6, 0xe9, 0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd]
        let kernel = try scratch.file("kernel", Self.kernel(code))
        let disk = try scratch.file("disk", Data(count: 1 << 20))
        let fifo = scratch("lives")
        try #require(mkfifo(fifo, 0o600) == 0)
        let reader = try #require(FileHandle(forUpdatingAtPath: fifo))
        let words = [
            try Bed.monitor, "--kernel", kernel, "--memory", "size=64M", "--serial", "null",
            "--console", "null", "--debug-console", "file=\(fifo)", "--disk",
            "path=\(disk),image_type=raw",
            "--net", "tap=swl-again",
        ]
        let guest = try Guest(words, in: scratch)
        func use(afterLives count: Int) throws -> (descriptors: Int, addresses: Int) {
            for _ in 0..<count { _ = try reader.read(upToCount: 1) }
            let process = "/proc/\(guest.process.identifier)"
            let status = try String(contentsOfFile: process + "/statm", encoding: .utf8)
            return (
                try FileManager.default.contentsOfDirectory(atPath: process + "/fd").count,
                try #require(status.split(separator: " ").first.flatMap { Int($0) })
            )
        }

        let first = try use(afterLives: 3)
        let last = try use(afterLives: 20)
        guest.process.send(SIGTERM)

        #expect(try guest.waitForExit() == 0)
        // Seven descriptors and the guest's 16384 pages a life were lost once. A life that is
        // just being made or unmade has some more or fewer.
        #expect(last.descriptors < first.descriptors + 20)
        #expect(last.addresses < first.addresses + 3 * 16384)
    }

    /// Jumps to where no memory is: mov $0xd0000000, %eax; jmp *%eax
    private static let jumpToNowhere: [UInt8] = [0xb8, 0, 0, 0, 0xd0, 0xff, 0xe0]

    /// An ELF file whose PVH entry is this code, at 1 MiB.
    static func kernel(_ code: [UInt8]) -> Data {
        var bytes: [UInt8] = []
        func add(_ value: Int, _ count: Int) {
            for index in 0..<count { bytes.append(UInt8(value >> (8 * index) & 0xff)) }
        }
        let entry = 0x10_0000
        let noteOffset = 64 + 2 * 56
        bytes += [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9)
        // Executable, x86-64, version, entry, program headers, sections, flags, sizes.
        for (value, count) in [(2, 2), (62, 2), (1, 4), (entry, 8), (64, 8), (0, 8), (0, 4)] {
            add(value, count)
        }
        for value in [64, 56, 2, 64, 0, 0] { add(value, 2) }
        func segment(_ type: Int, offset: Int, address: Int, count: Int) {
            add(type, 4)
            add(5, 4)
            for value in [offset, address, address, count, count, 4] { add(value, 8) }
        }
        segment(1, offset: 0x1000, address: entry, count: code.count)
        segment(4, offset: noteOffset, address: 0, count: 20)
        // XEN_ELFNOTE_PHYS32_ENTRY
        for value in [4, 4, 18] { add(value, 4) }
        bytes += [UInt8]("Xen".utf8) + [0]
        add(entry, 4)
        bytes += [UInt8](repeating: 0, count: 0x1000 - bytes.count) + code
        return Data(bytes)
    }
}
