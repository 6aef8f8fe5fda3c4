import Foundation
import Testing

@Suite("The API", .guest, .serialized)
struct APITests {
    private static func text(_ object: [String: Any]) throws -> String {
        String(decoding: try JSONSerialization.data(withJSONObject: object), as: UTF8.self)
    }

    private static func monitor(_ scratch: Scratch, _ more: String...) throws -> (Guest, API) {
        let words = [
            try Bed.monitor, "--api-socket", scratch("api"), "--event-monitor",
            "path=\(scratch("events"))",
        ]
        let guest = try Guest(words + more, in: scratch)
        return (guest, try API.wait(for: guest, scratch("api")))
    }

    @Test("a machine is created, booted, paused, resumed, switched off and booted again")
    func life() throws {
        let scratch = try Scratch()
        var boot = Boot(
            """
            dmesg -n 4
            (while true; do
                dd if=/dev/vda of=/dev/null bs=64k count=16 2>/dev/null
                dd if=/dev/zero of=/dev/vda bs=64k count=16 conv=fsync 2>/dev/null
            done) &
            while true; do
                say up "$(cut -d. -f1 /proc/uptime)"
                say sectors "$(cat /sys/block/vda/size)"
                say lockups "$(dmesg | grep -ciE 'lockup|stall|unknown nmi.*panic')"
                say nmis "$(dmesg | grep -ciE 'nmi.*reason')"
                sleep 1
            done
            """)
        boot.cpus = "boot=2"
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        let machine = try Self.text([
            "payload": [
                "kernel": try boot.kernel.path, "initramfs": try boot.initramfs(scratch),
                "cmdline": boot.commandLine,
            ],
            "cpus": ["boot_vcpus": 2, "max_vcpus": 2], "memory": ["size": 256 << 20],
            "serial": ["mode": "Tty"], "console": ["mode": "Off"],
            "disks": [["path": disk, "image_type": "Raw"]],
        ])
        let (guest, api) = try Self.monitor(scratch, "--no-shutdown")
        #expect(try api.ask("GET", "vm.info").status == 404)
        #expect(try api.put("vm.create", machine) == 204)
        #expect(try api.state() == "Created")
        #expect(try api.put("vm.boot") == 204)
        #expect(try api.state() == "Running")
        try guest.wait(for: "= up ", times: 3)

        // Longer than Linux's watchdogs wait (20 s), so that they would speak up.
        #expect(try api.put("vm.pause") == 204)
        #expect(try api.state() == "Paused")
        let before = try #require(guest.all("up").compactMap { Int($0) }.last)
        let count = guest.all("up").count
        Thread.sleep(forTimeInterval: 30)
        #expect(guest.all("up").count <= count + 1)
        let resumed = Date()
        #expect(try api.put("vm.resume") == 204)
        try guest.wait(for: "= up ", times: count + 3)
        let after = try #require(guest.all("up").compactMap { Int($0) }.last)
        // However slow the host is: to the guest no more time has passed than the host gave it,
        // and half of the pause for what it did between its last word and the pause.
        let given = Int(-resumed.timeIntervalSinceNow) + 15
        #expect(after - before < given, "the guest's clock jumped from \(before) to \(after)")
        #expect(guest.all("lockups").last == "0")

        let counters = try api.object("vm.counters")
        let reads = (counters["_disk0"] as? [String: Any])?["read_bytes"] as? Int
        #expect(try #require(reads) > 0)
        #expect(
            try api.put("vm.resize-disk", #"{"id":"_disk0","desired_size":2097152}"#) == 204)
        try guest.wait(for: "= sectors 4096")
        #expect(try api.put("vm.nmi") == 204)
        try guest.wait(for: "= nmis 2")
        #expect(try api.put("vm.reboot") == 204)
        try guest.wait(for: "swiftlet-guest: init", times: 2)
        try guest.wait(for: "= up ", times: guest.all("up").count + 2)
        #expect(try api.put("vm.power-button") == 204)
        try guest.wait(for: "swiftlet-guest: power button")

        // The events tell when the guest is off.
        let deadline = Date(timeIntervalSinceNow: Guest.patience)
        while try api.state() != "Created", Date() < deadline { Thread.sleep(forTimeInterval: 1) }
        #expect(try api.state() == "Created")
        #expect(try api.put("vm.boot") == 204)
        try guest.wait(for: "swiftlet-guest: init", times: 3)
        #expect(try api.put("vm.shutdown") == 204)
        #expect(try api.put("vm.delete") == 204)
        #expect(try api.put("vmm.shutdown") == 200)
        #expect(try guest.waitForExit() == 0)
        #expect(!scratch.exists("api"))
        #expect(
            try scratch.events("events").filter { !$0.hasPrefix("virtio-device") } == [
                "vmm starting", "vmm ready", "vm booting", "vm booted", "vm pausing", "vm paused",
                "vm resuming", "vm resumed", "vm rebooting", "vm shutdown", "vm booting",
                "vm booted", "vm rebooted", "vm shutdown", "vm booting", "vm booted",
                "vm shutdown", "vm deleted", "vmm shutdown",
            ])
    }

    /// Halts for ever: hlt; jmp to it.
    private static func idle(_ scratch: Scratch) throws -> String {
        let kernel = try scratch.file("kernel", LifecycleTests.kernel([0xf4, 0xeb, 0xfd]))
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        return try text([
            "payload": ["kernel": kernel], "memory": ["size": 64 << 20],
            "serial": ["mode": "Null"], "console": ["mode": "Null"],
            "disks": [["path": disk, "image_type": "Raw", "num_queues": 2]],
            "net": [["tap": "swl-api"]], "vsock": ["cid": 3, "socket": scratch("vsock")],
        ])
    }

    /// The statuses of requests that follow each other on one connection, all without an answer.
    private static func put(_ stream: UnixStream, _ name: String, _ body: String = "") throws -> Int
    {
        let head = "PUT /api/v1/\(name) HTTP/1.1\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
        try stream.send(head + body)
        let status = try stream.line().split(separator: " ").dropFirst().first
        while try stream.line() != "\r" {}
        return status.flatMap { Int($0) } ?? 0
    }

    /// A hundred are enough to see what each leaves; more by hand.
    private static let cycleCount =
        ProcessInfo.processInfo.environment["SWIFTLET_CYCLES"].flatMap { Int($0) } ?? 100

    @Test("machines come and go, and leave nothing behind")
    func cycles() throws {
        let scratch = try Scratch()
        let (guest, api) = try Self.monitor(scratch)
        let machine = try Self.idle(scratch)
        let stream = try UnixStream(to: api.socket)
        func use(afterCycles count: Int) throws -> ProcessUse {
            for _ in 0..<count {
                for name in ["create", "boot", "pause", "resume", "shutdown", "delete"] {
                    let body = name == "create" ? machine : ""
                    #expect(try Self.put(stream, "vm.\(name)", body) == 204)
                }
            }
            return try ProcessUse(guest.process.identifier)
        }
        let first = try use(afterCycles: 10)
        let last = try use(afterCycles: Self.cycleCount)
        print("\(Self.cycleCount) cycles: \(first), \(last)")
        #expect(last.descriptors == first.descriptors)
        #expect(last.threads == first.threads)
        // What the allocator and the kernel keep, not a machine's share for each.
        #expect(last.residentKiB < first.residentKiB + 4096)
        #expect(last.mappedKiB < first.mappedKiB + 65536)
        #expect(try api.put("vmm.shutdown") == 200)
        #expect(try guest.waitForExit() == 0)
        #expect(try !Bed.interfaces.contains("swl-api"))
    }

    @Test("ch-remote walks through a machine's life, and watches it")
    func remote() throws {
        let scratch = try Scratch()
        let (guest, api) = try Self.monitor(scratch, "--no-shutdown")
        let program = scratch("ch-remote")
        try FileManager.default.createSymbolicLink(
            atPath: program, withDestinationPath: Bed.setting("SWIFTLET_TOOL"))
        func ask(_ words: String...) throws -> HostCommand {
            try HostCommand([program, "--api-socket", api.socket] + words)
        }
        let watcher = try Guest([program, "--api-socket", api.socket, "watch"], in: scratch)
        let machine = try scratch.file("machine", try Self.idle(scratch))
        #expect(try ask("ping").output.contains(#""version""#))
        let early = try ask("info")
        #expect(early.status == 1)
        #expect(early.errors.contains("the VM is not created"))
        #expect(try ask("create", machine).status == 0)
        // No NMI: this guest has nothing to take it with, and would reset.
        for verb in ["boot", "pause", "resume", "reboot", "power-button"] {
            #expect(try ask(verb).status == 0, "\(verb)")
        }
        let resized = try ask("resize-disk", "--disk", "_disk0", "--size", "2M")
        #expect(resized.status == 0, "\(resized.errors)")
        #expect(try ask("info").output.contains(#""state":"Running""#))
        #expect(try ask("counters").output.contains(#""_disk0""#))
        #expect(try ask("resume").status == 1)
        #expect(try ask("snapshot", "file:///none").status == 1)
        for verb in ["shutdown", "delete", "shutdown-vmm"] {
            #expect(try ask(verb).status == 0, "\(verb)")
        }
        #expect(try guest.waitForExit() == 0)
        #expect(try watcher.waitForExit() == 0)
        for event in ["booted", "paused", "resumed", "rebooted", "deleted"] {
            #expect(watcher.console.text.contains(#""event":"\#(event)""#), "\(event)")
        }
        #expect(watcher.console.text.contains(#""source":"vmm","event":"shutdown""#))
    }

    @Test("mistakes have their status and leave the guest alone")
    func mistakes() throws {
        let scratch = try Scratch()
        let (guest, api) = try Self.monitor(scratch)
        let bad = #"{"payload":{"kernel":"/none"},"disks":[{"path":"/none"}]}"#
        #expect(try api.put("vm.boot") == 404)
        #expect(try api.put("vm.create", bad) == 204)
        let refused = try api.ask("PUT", "vm.boot")
        #expect(refused.status == 400)
        #expect(refused.body.contains("payload.kernel '/none'"), "\(refused.body)")
        #expect(try api.put("vm.delete") == 204)
        #expect(try api.put("vm.create", try Self.idle(scratch)) == 204)
        #expect(try api.put("vm.boot") == 204)
        #expect(try api.put("vm.boot") == 500)
        #expect(try api.put("vm.create", "{}") == 500)
        #expect(try api.put("vm.resume") == 500)
        #expect(try api.ask("POST", "vm.boot").status == 400)
        #expect(try api.ask("GET", "vm.nothing").status == 404)
        #expect(try api.put("vm.resize-disk", #"{"id":"x","desired_size":512}"#) == 404)
        #expect(try api.state() == "Running")
        let second = try Guest([try Bed.monitor, "--api-socket", scratch("api")], in: scratch)
        #expect(try second.waitForExit() == 1)
        #expect(second.errors.text.contains("in use"))
        guest.process.send(SIGTERM)
        #expect(try guest.waitForExit() == 0)
    }
}

/// What a process has at the moment.
private struct ProcessUse: CustomStringConvertible {
    let descriptors: Int
    let threads: Int
    let mappedKiB: Int
    let residentKiB: Int

    init(_ identifier: Int32) throws {
        let process = "/proc/\(identifier)"
        let pages = try String(contentsOfFile: process + "/statm", encoding: .utf8)
            .split(separator: " ").compactMap { Int($0) }
        descriptors = try FileManager.default.contentsOfDirectory(atPath: process + "/fd").count
        threads = try FileManager.default.contentsOfDirectory(atPath: process + "/task").count
        mappedKiB = pages[0] * 4
        residentKiB = pages[1] * 4
    }

    var description: String {
        "\(descriptors) descriptors, \(threads) threads, \(residentKiB) of \(mappedKiB) KiB"
    }
}
