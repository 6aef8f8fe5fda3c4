import Foundation
import Testing

/// Devices that come to a running guest and leave it.
@Suite("Hotplug", .guest)
struct HotplugTests {
    /// As many cycles as fit into a minute of the bed; more by hand.
    private static let cycles =
        ProcessInfo.processInfo.environment["SWIFTLET_HOTPLUG_CYCLES"].flatMap { Int($0) } ?? 12

    private let scratch: Scratch

    init() throws { scratch = try Scratch() }

    /// A guest that does what is typed.
    private func start(_ more: String...) throws -> (guest: Guest, api: API) {
        var boot = Boot(
            """
            until_there() { while [ ! -e "$1" ]; do sleep 0.1; done; }
            until_gone() { while [ -e "$1" ]; do sleep 0.1; done; }
            echo ready
            while read -r words; do
                case $words in end) break ;; esac
                eval "$words"
            done
            """)
        boot.programs = ["vsock-peer"]
        boot.options =
            [
                "--api-socket", scratch("api"), "--event-monitor", "path=\(scratch("events"))",
                "--landlock-rules", "path=\(scratch.path),access=rw",
            ] + more
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")
        return (guest, API(socket: scratch("api")))
    }

    private func stop(_ guest: Guest) throws {
        guest.type("end\n")
        try guest.finish()
    }

    private func disk(_ name: String) throws -> String {
        try scratch.sparseFile(name, bytes: 2 << 20)
    }

    private func waitForEvent(_ event: String) throws {
        try waitUntil(event) { try scratch.events("events").contains(event) }
    }

    @Test("a disk comes, is read and written, and goes")
    func disks() throws {
        let boot = try disk("boot")
        let hot = try disk("hot")
        let (guest, api) = try start("--disk", "path=\(boot),image_type=raw")
        let added = try api.put("vm.add-disk", ["path": hot, "image_type": "Raw"])
        #expect(added.status == 200)
        #expect(added.answer["id"] as? String == "_disk1")
        #expect(added.answer["bdf"] as? String == "0000:00:03.0")
        guest.type("until_there /dev/vdb; say size $(cat /sys/block/vdb/size)\n")
        try guest.wait(for: "= size 4096")
        guest.type("echo hello | dd of=/dev/vdb bs=512 conv=sync,fsync 2>/dev/null\n")
        guest.type("say holds $(dd if=/dev/vdb bs=5 count=1 2>/dev/null)\n")
        try guest.wait(for: "= holds hello")
        #expect(try scratch.data("hot").prefix(5) == Data("hello".utf8))

        #expect(try api.put("vm.add-disk", ["path": hot, "id": "_disk1"]).status == 409)
        #expect(try api.put("vm.add-disk", ["path": "/none"]).status == 400)
        let taken: [String: Any] = ["path": hot, "image_type": "Raw", "pci_device_id": 1]
        #expect(try api.put("vm.add-disk", taken).status == 400)
        #expect(try api.put("vm.remove-device", ["id": "none"]).status == 404)
        #expect(try api.put("vm.remove-device", ["id": "__rng"]).status == 500)
        for id in ["_disk1", "_disk0"] {
            #expect(try api.put("vm.remove-device", ["id": id]).status == 204)
            try waitForEvent("vm device-removed \(id)")
        }
        guest.type("say errors $(dmesg | grep -c 'ACPI.*Error')\n")
        try guest.wait(for: "= errors 0")
        guest.type("until_gone /sys/block/vda; until_gone /sys/block/vdb; say gone both\n")
        try guest.wait(for: "= gone both")
        let configuration = try api.object("vm.info")["config"] as? [String: Any]
        #expect(configuration?["disks"] == nil)
        #expect(try api.put("vm.remove-device", ["id": "_disk1"]).status == 404)
        try stop(guest)
    }

    @Test("a network interface and a vsock device come and go, and a disk outlives a reboot")
    func others() throws {
        let (guest, api) = try start("--platform", "num_pci_segments=3")
        let path = try disk("hot")
        let place = try api.put(
            "vm.add-disk",
            ["path": path, "image_type": "Raw", "pci_segment": 2, "pci_device_id": 7])
        #expect(place.answer["bdf"] as? String == "0002:00:07.0")
        #expect(
            try api.put(
                "vm.add-net",
                [
                    "id": "n", "tap": "swl-hot", "ip": "192.168.213.1", "mask": "255.255.255.0",
                    "pci_segment": 1,
                ]
            ).answer["bdf"] as? String == "0001:00:00.0")
        #expect(try api.put("vm.add-vsock", ["cid": 3, "socket": scratch("v")]).status == 200)
        #expect(try api.put("vm.add-vsock", ["cid": 4, "socket": scratch("w")]).status == 500)
        guest.type("until_there /sys/bus/pci/devices/0002:00:07.0/driver; say disk there\n")
        guest.type("until_there /sys/class/net/eth0; ip address add 192.168.213.2/24 dev eth0\n")
        guest.type("ip link set eth0 up; say ping $(ping -c 2 -W 9 192.168.213.1 | grep -c from)\n")
        try guest.wait(for: "= disk there")
        try guest.wait(for: "= ping 2")
        try waitForEvent("virtio-device activated _vsock2")
        guest.type("/vsock-peer serve 1000 &\n")
        try guest.wait(for: "ready\n", times: 2)
        #expect(try VsockTests.echo(scratch("v"), port: 1000, count: 100_000) == 100_000)

        for id in ["n", "_vsock2"] {
            #expect(try api.put("vm.remove-device", ["id": id]).status == 204)
            try waitForEvent("vm device-removed \(id)")
        }
        #expect(try !Bed.interfaces.contains("swl-hot"))
        #expect(!scratch.exists("v"))
        #expect(try api.put("vm.reboot") == 204)
        try guest.wait(for: "ready\n", times: 3)
        guest.type("until_there /sys/bus/pci/devices/0002:00:07.0/driver; say again there\n")
        guest.type("say interfaces $(ls /sys/class/net | xargs)\n")
        try guest.wait(for: "= again there")
        try guest.wait(for: "= interfaces lo")
        try stop(guest)
    }

    /// Sends a request with descriptors of a tap, as many as its second argument says, and prints
    /// the answer.
    private static let sender = """
        import fcntl, socket, struct, sys
        tap = open('/dev/net/tun', 'r+b', buffering=0)
        # TUNSETIFF with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
        fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'swl-hot-fd', 0x5002))
        body = sys.argv[3].encode()
        head = 'PUT /api/v1/vm.add-net HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n'
        client = socket.socket(socket.AF_UNIX)
        client.connect(sys.argv[1])
        rights = [tap.fileno()] * int(sys.argv[2])
        socket.send_fds(client, [(head % len(body)).encode() + body], rights)
        print(client.recv(65536).decode())
        """

    @Test("a tap comes as a descriptor, and is closed with its device")
    func descriptors() throws {
        let (guest, api) = try start()
        func send(_ count: Int, _ body: String) throws -> String {
            try HostCommand.run("python3", "-c", Self.sender, scratch("api"), "\(count)", body)
        }
        let descriptors = "/proc/\(guest.process.identifier)/fd"
        let before = try FileManager.default.contentsOfDirectory(atPath: descriptors).count
        #expect(try send(2, #"{"num_queues":2}"#).contains("asks for 1 of them"))
        #expect(try send(1, #"{"num_queues":2,"id":"n","fds":[-1]}"#).contains(" 200 "))
        guest.type("until_there /sys/class/net/eth0; say net there\n")
        try guest.wait(for: "= net there")
        #expect(try Bed.interfaces.contains("swl-hot-fd"))
        #expect(try api.put("vm.remove-device", ["id": "n"]).status == 204)
        try waitForEvent("vm device-removed n")
        #expect(try !Bed.interfaces.contains("swl-hot-fd"))
        let after = try FileManager.default.contentsOfDirectory(atPath: descriptors).count
        #expect(after <= before + 1)
        try stop(guest)
    }

    @Test("a guest that is paused hears of what came and goes when it goes on")
    func paused() throws {
        let (guest, api) = try start("--disk", "path=\(try disk("boot")),image_type=raw")
        #expect(try api.put("vm.pause") == 204)
        let hot = try disk("hot")
        let added = try api.put("vm.add-disk", ["path": hot, "image_type": "Raw"])
        #expect(added.status == 200)
        let tree = try api.object("vm.info")["device_tree"] as? [String: [String: Any]]
        let bdf = tree?["_virtio-pci-_disk1"]?["pci_bdf"] as? String
        #expect(bdf != nil && bdf == added.answer["bdf"] as? String)
        #expect(try api.put("vm.remove-device", ["id": "_disk0"]).status == 204)
        #expect(try api.put("vm.resume") == 204)
        try waitForEvent("vm device-removed _disk0")
        guest.type("until_there /sys/block/vdb; until_gone /sys/block/vda; say moved\n")
        try guest.wait(for: "= moved")

        // Asked for while it stands still, a device goes with the life of the guest.
        #expect(try api.put("vm.pause") == 204)
        #expect(try api.put("vm.remove-device", ["id": "_disk1"]).status == 204)
        #expect(try api.put("vm.reboot") == 204)
        try waitForEvent("vm device-removed _disk1")
        try guest.wait(for: "ready\n", times: 2)
        guest.type("say disks none$(ls /sys/block | grep -c vd)\n")
        try guest.wait(for: "= disks none0")
        try stop(guest)
    }

    @Test("interfaces without a tap come and go: a wire between two of them")
    func wires() throws {
        let (guest, api) = try start()
        let wire = scratch("wire")
        func add(_ more: [String: String]) throws -> Int {
            try api.put("vm.add-net", more as [String: Any]).status
        }
        let client = ["id": "b", "backend": "socket", "path": wire]
        #expect(try add(client) == 400, "nobody listens")
        let server = ["id": "a", "backend": "socket", "path": wire, "mode": "server"]
        #expect(try add(server) == 200)
        #expect(try add(client) == 200)
        guest.type("until_there /sys/class/net/eth1; ip link set eth0 up; ip link set eth1 up\n")
        guest.type("carrier() { while [ $(cat /sys/class/net/$1/carrier) != $2 ]; do sleep 0.1;")
        guest.type(" done; say $1 $2; }; carrier eth0 1; carrier eth1 1\n")
        try guest.wait(for: "= eth1 1")
        #expect(try api.put("vm.remove-device", ["id": "b"]).status == 204)
        try waitForEvent("vm device-removed b")
        guest.type("carrier eth0 0\n")
        try guest.wait(for: "= eth0 0")

        // The monitor is confined by now, and starts no programs.
        #expect(try add(["id": "u", "backend": "user"]) == 400)
        #expect(try api.put("vm.remove-device", ["id": "a"]).status == 204)
        try waitForEvent("vm device-removed a")
        #expect(!scratch.exists("wire"))
        try stop(guest)
    }

    @Test("where nothing is confined, passt comes and goes with its interface")
    func companions() throws {
        // Without a way out of the host passt ends at once.
        let route = try HostRoute()
        defer { withExtendedLifetime(route) {} }
        let (guest, api) = try start("--seccomp", "false", "--landlock", "off")
        #expect(try api.put("vm.add-net", ["id": "u", "backend": "user"]).status == 200)
        guest.type("until_there /sys/class/net/eth0/carrier; ip link set eth0 up\n")
        guest.type("while [ $(cat /sys/class/net/eth0/carrier) != 1 ]; do sleep 0.1; done\n")
        guest.type("say linked\n")
        try guest.wait(for: "= linked")
        #expect(try api.put("vm.remove-device", ["id": "u"]).status == 204)
        try waitForEvent("vm device-removed u")
        try stop(guest)
    }

    @Test("to a guest without ACPI nothing comes, and that is said")
    func withoutACPI() throws {
        var boot = Boot("say up; read -r words")
        boot.kernelWords = ["acpi=off"]
        // The only kernel that finds its interrupts by an MP table.
        boot.kernel = Kernel(version: .generic, format: .elf)
        boot.options = [
            "--api-socket", scratch("api"), "--disk",
            "path=\(try disk("boot")),image_type=raw",
        ]
        let guest = try boot.start(scratch)
        let api = API(socket: scratch("api"))
        try guest.wait(for: "= up")
        let hot = #"{"path":"\#(try disk("hot"))","image_type":"Raw"}"#
        for (name, body) in [("vm.add-disk", hot), ("vm.remove-device", #"{"id":"_disk0"}"#)] {
            let answer = try api.ask("PUT", name, body)
            #expect(answer.status == 500 && answer.body.contains("acpi=off"), "\(answer)")
        }
        let place = try api.object("vm.info")["device_tree"] as? [String: Any]
        #expect(place?["_virtio-pci-_disk0"] != nil && place?["_disk1"] == nil)
        // Such a guest cannot switch itself off.
        #expect(try api.put("vmm.shutdown") == 200)
        #expect(try guest.waitForExit() == 0)
    }

    @Test("devices come and go many times, and leave nothing behind")
    func cycles() throws {
        let (guest, api) = try start()
        let path = try disk("hot")
        func use(_ cycles: Range<Int>) throws -> (descriptors: Int, residentPages: Int) {
            for cycle in cycles {
                let id = "hot\(cycle)"
                let disk: [String: Any] = ["path": path, "image_type": "Raw", "id": id]
                let added = try api.put("vm.add-disk", disk)
                #expect(added.answer["bdf"] as? String == "0000:00:02.0")
                try waitForEvent("virtio-device activated \(id)")
                #expect(try api.put("vm.remove-device", ["id": id]).status == 204)
                try waitForEvent("vm device-removed \(id)")
            }
            let process = "/proc/\(guest.process.identifier)"
            let memory = try String(contentsOfFile: process + "/statm", encoding: .utf8)
            return (
                try FileManager.default.contentsOfDirectory(atPath: process + "/fd").count,
                try #require(memory.split(separator: " ").dropFirst().first.flatMap { Int($0) })
            )
        }
        let start = Date()
        let first = try use(0..<3)
        let last = try use(3..<3 + Self.cycles)
        print(
            "hotplug: \(Self.cycles) cycles, \(first) then \(last), \(-start.timeIntervalSinceNow) s"
        )
        #expect(last.descriptors <= first.descriptors + 1)
        // The guest itself may touch more of its memory meanwhile, and that counts here.
        #expect(last.residentPages < first.residentPages + 8192)
        try stop(guest)
    }
}
