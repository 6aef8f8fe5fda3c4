import Foundation
import Testing
import VMMBase

/// Everything at once, at random: disk, net, vsock, devices that come and go, pauses, reboots, and
/// clients that storm the API.
@Suite("Soak", .guest)
struct SoakTests {
    /// Half an hour by hand: SWIFTLET_SOAK_SECONDS=1800.
    private static let seconds =
        ProcessInfo.processInfo.environment["SWIFTLET_SOAK_SECONDS"].flatMap { Double($0) } ?? 20
    private static let seed =
        ProcessInfo.processInfo.environment["SWIFTLET_SEED"].flatMap { UInt64($0) }
        ?? UInt64.random(in: 0...UInt64.max)

    /// Writes and compares, pings and serves, and does what is typed.
    private static let script = """
        dmesg -n 4
        until_there() { while [ ! -e "$1" ]; do sleep 0.1; done; }
        until_gone() { while [ -e "$1" ]; do sleep 0.1; done; }
        ip address add 192.168.215.2/24 dev eth0
        ip link set eth0 up
        /vsock-peer serve 1000 &
        (round=0; while true; do
            dd if=/dev/urandom of=/pattern bs=4k count=32 2>/dev/null
            place=$((round % 16 * 32))
            dd if=/pattern of=/dev/vda bs=4k seek=$place conv=fsync 2>/dev/null || say broken write
            echo 1 >/proc/sys/vm/drop_caches
            dd if=/dev/vda of=/back bs=4k skip=$place count=32 2>/dev/null || say broken read
            cmp -s /pattern /back || say broken disk
            round=$((round + 1))
            say round $round
        done) &
        (while true; do
            ping -c 1 -W 60 192.168.215.1 >/dev/null || say broken ping
            sleep 0.2
        done) &
        say up
        while read -r words; do
            case $words in end) break ;; esac
            eval "$words"
        done
        """

    private let scratch: Scratch
    private let guest: Guest
    private let api: API
    private let disk: String

    init() throws {
        scratch = try Scratch()
        disk = try scratch.sparseFile("hot", bytes: 2 << 20)
        var boot = Boot(Self.script)
        boot.cpus = "boot=2"
        boot.programs = ["vsock-peer"]
        boot.options = [
            "--api-socket", scratch("api"), "--event-monitor", "path=\(scratch("events"))",
            "--disk", "path=\(try scratch.sparseFile("disk", bytes: 4 << 20)),image_type=raw",
            "--net", "tap=swl-soak,ip=192.168.215.1,mask=255.255.255.0",
            "--vsock", "cid=3,socket=\(scratch("v"))",
            "--landlock-rules", "path=\(scratch.path),access=rw",
        ]
        guest = try boot.start(scratch)
        api = API(socket: scratch("api"))
    }

    private enum Deed: CaseIterable {
        case pause, disk, net, vsock, storm, reboot
    }

    @Test("a machine that everything happens to is as it was, and so is its guest")
    func soak() throws {
        print("soak: \(Self.seconds) s, SWIFTLET_SEED=\(Self.seed)")
        try waitForBoot(1)
        var boots = 1
        var counts: [Deed: Int] = [:]
        func perform(_ deed: Deed, _ random: inout SeededGenerator) throws {
            counts[deed, default: 0] += 1
            try self.perform(deed, counts[deed, default: 0], &random)
            if deed == .reboot {
                boots += 1
                try waitForBoot(boots)
            }
            let round = guest.all("round").count
            try guest.wait(for: "= round ", times: round + 2)
        }

        var random = SeededGenerator(seed: Self.seed)
        for deed in Deed.allCases { try perform(deed, &random) }
        let before = try footprint()
        let complaints = try Self.hostComplaints()
        let end = Date(timeIntervalSinceNow: Self.seconds)
        while Date() < end {
            // A boot takes as long as many others.
            let isReboot = Int.random(in: 0..<16, using: &random) == 0
            let others = Deed.allCases.dropLast()
            try perform(
                isReboot ? .reboot : others.randomElement(using: &random) ?? .storm, &random)
        }
        let after = try footprint()
        print("soak: \(counts), \(before) then \(after)")

        #expect(after.descriptors <= before.descriptors + 1)
        #expect(after.threads == before.threads)
        #expect(after.anonymousKiB < before.anonymousKiB + 1024)
        try expectQuiet()
        #expect(try Self.hostComplaints() == complaints)
        guest.type("end\n")
        try guest.finish()
        #expect(!guest.console.text.contains("= broken"))
        #expect(!guest.errors.text.lowercased().contains("error"))
        #expect(try !Bed.interfaces.contains { $0.hasPrefix("swl-soak") })
    }

    private func waitForBoot(_ number: Int) throws {
        try guest.wait(for: "= up\n", times: number)
        // vsock-peer's own word.
        try guest.wait(for: "ready\n", times: number)
    }

    private func perform(_ deed: Deed, _ count: Int, _ random: inout SeededGenerator) throws {
        switch deed {
        case .pause:
            #expect(try api.put("vm.pause") == 204)
            Thread.sleep(forTimeInterval: Double.random(in: 0..<1, using: &random))
            #expect(try api.put("vm.resume") == 204)
        case .disk:
            let added = try api.put(
                "vm.add-disk", ["id": "hot\(count)", "path": disk, "image_type": "Raw"])
            #expect(added.status == 200)
            guest.type("until_there /dev/vdb; dd if=/dev/vdb of=/dev/null 2>/dev/null; ")
            guest.type("say disk-\(count) read\n")
            try guest.wait(for: "= disk-\(count) read\n")
            try remove("hot\(count)")
            guest.type("until_gone /sys/block/vdb\n")
        case .net:
            let added = try api.put("vm.add-net", ["id": "net\(count)", "tap": "swl-soak-hot"])
            #expect(added.status == 200)
            guest.type("until_there /sys/class/net/eth1; ip link set eth1 up; ")
            guest.type("say net-\(count) there\n")
            try guest.wait(for: "= net-\(count) there\n")
            try remove("net\(count)")
            guest.type("until_gone /sys/class/net/eth1\n")
        case .vsock:
            let bytes = Int.random(in: 1..<300_000, using: &random)
            #expect(try VsockTests.echo(scratch("v"), count: bytes) == bytes)
        case .storm: try storm()
        case .reboot:
            try expectQuiet()
            #expect(try api.put("vm.reboot") == 204)
        }
    }

    private func remove(_ id: String) throws {
        #expect(try api.put("vm.remove-device", ["id": id]).status == 204)
        try waitUntil("the end of \(id)") {
            try scratch.events("events").contains("vm device-removed \(id)")
        }
    }

    /// Requests side by side, right and wrong ones.
    private func storm() throws {
        let requests: [(method: String, name: String, body: String?, status: Int)] = [
            ("GET", "vmm.ping", nil, 200), ("GET", "vm.info", nil, 200),
            ("GET", "vm.counters", nil, 200), ("PUT", "vm.create", "{", 400),
            ("PUT", "vm.add-disk", #"{"path":"/none"}"#, 400), ("PUT", "vm.none", nil, 404),
            ("PUT", "vm.remove-device", #"{"id":"none"}"#, 404),
        ]
        let answers = requests.map { request in
            Background { [api] in
                try api.ask(request.method, request.name, request.body).status == request.status
            }
        }
        for (answer, request) in zip(answers, requests) {
            #expect(try answer.value(), "\(request.name)")
        }
    }

    /// The guest's kernel has nothing to complain of since its boot.
    private func expectQuiet() throws {
        let count = guest.all("complaints").count
        guest.type(
            "say complaints $(dmesg | grep -ciE 'I/O error|Call Trace|BUG:|lockup|ACPI.*Error')\n")
        try waitUntil("the guest's answer") { guest.all("complaints").count > count }
        #expect(try guest.number("complaints") == 0)
    }

    /// What the host's kernel has to say, of KVM too.
    private static func hostComplaints() throws -> [String] {
        try HostCommand.run("dmesg").split(separator: "\n").map { String($0) }.filter {
            $0.contains(/BUG:|WARNING:|Call Trace|lockup|kvm.*(error|fail)/)
        }
    }

    private struct Footprint {
        let descriptors: Int
        let threads: Int
        /// What the kernel cannot drop and read again, without the guest's memory. Pages of the
        /// program come and go: a machine that boots gives them back.
        let anonymousKiB: Int
    }

    private func footprint() throws -> Footprint {
        let process = "/proc/\(guest.process.identifier)"
        let files = FileManager.default
        var anonymous = 0
        var isGuestMemory = false
        let smaps = try String(contentsOfFile: process + "/smaps", encoding: .utf8)
        for line in smaps.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count > 1, let number = Int(words[1]) else { continue }
            if words[0] == "Size:" { isGuestMemory = number >= 64 << 10 }
            if words[0] == "Anonymous:", !isGuestMemory { anonymous += number }
        }
        return Footprint(
            descriptors: try files.contentsOfDirectory(atPath: process + "/fd").count,
            threads: try files.contentsOfDirectory(atPath: process + "/task").count,
            anonymousKiB: anonymous)
    }
}
