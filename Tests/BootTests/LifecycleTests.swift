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
            "--disk", "path=\(disk)", "--net",
            "tap=swl-boot\(number),ip=\(subnet).1,mask=255.255.255.0",
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
        let before = guest.terminalSettings
        try guest.wait(for: "ready")
        #expect(guest.terminalSettings != before)
        #expect(scratch.exists("socket"))
        #expect(try Bed.interfaces.contains("swl-sig\(signal)"))

        guest.process.send(signal)

        #expect(try guest.waitForExit(within: 30) == 0)
        #expect(guest.terminalSettings == before)
        #expect(!scratch.exists("socket"))
        #expect(try !Bed.interfaces.contains("swl-sig\(signal)"))
    }
}
