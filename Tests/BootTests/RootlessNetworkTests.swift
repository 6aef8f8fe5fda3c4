import Foundation
import Testing

/// Networks of a user without rights: the monitor, the switch and passt all run as nobody.
@Suite("Rootless network", .aloneInTheBed)
struct RootlessNetworkTests {
    private let scratch: Scratch
    private let monitor: String

    init() throws {
        scratch = try Scratch()
        chmod(scratch.path, 0o777)
        monitor = try scratch.copy(Bed.monitor)
    }

    /// The kernel where nobody may read it.
    private func copyOnce(_ kernel: Kernel) throws -> String {
        let name = "kernel-\(kernel.version.rawValue)"
        guard !scratch.exists(name) else { return scratch(name) }
        return try scratch.file(name, Data(contentsOf: URL(filePath: kernel.path)))
    }

    /// Runs the words after it as nobody, with a device node of KVM that anybody may open.
    static let asNobody = [
        "unshare", "-m", "sh", "-ec",
        """
        numbers=$(stat -c '0x%t 0x%T' /dev/kvm); mount -t tmpfs none /mnt
        mknod /mnt/kvm c $numbers; chmod 666 /mnt/kvm; mount --bind /mnt/kvm /dev/kvm
        exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
        """, "sh",
    ]

    private func start(_ boot: Boot, _ network: String) throws -> Guest {
        var boot = boot
        boot.options += ["--net", network, "-v"]
        var words = try boot.arguments(scratch)
        words[0] = monitor
        words[2] = try copyOnce(boot.kernel)
        return try Guest(Self.asNobody + words, in: scratch)
    }

    // A guest that receives gives nc a standard input without an end: nc hands an end on, its peer
    // would leave, and Debian 12's passt is known to us to stall on such half-closed connections.

    /// 4 MB, each with its number: random bytes, and even lines, are dear in the bed. Each frame
    /// costs two guests and the switch their time there.
    private static let makeFile = """
        seq 1 170000 >/part
        for i in $(seq 4); do echo "$i"; head -c 1000000 /part; done >/file
        """

    private func startSwitch(_ words: String...) throws -> Guest {
        let confinement = Bed.seccomp.map { ["--seccomp", $0] } ?? []
        let tool = try Guest(
            Self.asNobody + [
                try scratch.copy(Bed.setting("SWIFTLET_TOOL")), "switch", "--socket",
                scratch("switch"), "--stats", "--json", "-v",
            ] + words + confinement, in: scratch)
        try waitUntil("the switch's socket") { scratch.exists("switch") }
        return tool
    }

    @Test("two guests of different kinds leave checksums and segments to each other on the switch")
    func offloads() throws {
        let tool = try startSwitch("--vnet-hdr")
        let link = "backend=socket,vnet_hdr=on,path=\(scratch("switch"))"
        var serving = NetworkLoadTests.boot(
            """
            serve
            tool ethtool -k eth0 | sed -n 's/^tcp-segmentation-offload: //p' | while read -r line; do
                say segments "$line"
            done
            """, tools: try toolsForAll())
        serving.kernelWords = ["swiftlet.ip=10.77.0.1/24"]
        serving.use(.other)
        let server = try start(serving, link)

        var asking = NetworkLoadTests.boot(
            """
            load() {
                tool iperf3 -c 10.77.0.1 -t 2 -J "$@" >/out || fail "iperf3 $*"
                sed -n '/"sum_received"/,/}/s/.*"bytes":[^0-9]*\\([0-9]*\\).*/\\1/p' /out
            }
            echo ready
            read word
            say ping "$(ping -c 3 -s 1400 -W 10 10.77.0.1 | grep -c 'bytes from')"
            say sent "$(load)"
            say received "$(load -R)"
            """, tools: try toolsForAll())
        asking.kernelWords = ["swiftlet.ip=10.77.0.2/24"]
        let client = try start(asking, link)
        for guest in [server, client] { try guest.wait(for: "ready\n") }
        client.type("go on\n")
        try client.finish()
        // While the server's port is there.
        tool.process.send(SIGUSR1)
        try waitUntil("the statistics") { tool.console.text.contains("]") }
        server.type("end\n")
        try server.finish()
        tool.process.send(SIGTERM)
        #expect(try tool.waitForExit() == 0)

        #expect(try server.told("segments") == "on")
        #expect(try client.number("ping") == 3)
        #expect(try client.number("sent") > 0)
        #expect(try client.number("received") > 0)
        // Frames were larger than Ethernet's on their way.
        let text = try #require(tool.console.text.split(separator: "\n]").first) + "]"
        let report = try JSONSerialization.jsonObject(with: Data(text.utf8))
        let ports = try #require(report as? [[String: Any]])
        let largest = ports.map { port in
            (port["sent-bytes"] as? Int ?? 0) / max(1, port["sent-frames"] as? Int ?? 1)
        }.max()
        #expect(try #require(largest) > 1514, "\(tool.console.text)")
    }

    /// The tools' disk where nobody may read it.
    private func toolsForAll() throws -> String {
        guard !scratch.exists("tools") else { return scratch("tools") }
        return try scratch.file(
            "tools", Data(contentsOf: URL(filePath: Bed.guests + "/tools"), options: .alwaysMapped))
    }

    @Test("two guests of different kinds ping each other and move 4 MB through the switch")
    func throughSwitch() throws {
        let socket = scratch("switch")
        let tool = try startSwitch()
        var receiver = Boot(
            """
            mkfifo /never
            echo ready
            nc -l -p 5000 <>/never >/file || fail receive
            say received "$(sha256sum </file)"
            """)
        receiver.kernelWords = ["swiftlet.ip=10.77.0.1/24"]
        receiver.use(.other)
        let receiving = try start(receiver, "backend=socket,path=\(socket)")

        var sender = Boot(
            """
            \(Self.makeFile)
            echo ready
            read word
            say carrier "$(cat /sys/class/net/eth0/carrier)"
            say ping "$(ping -c 3 -W 5 10.77.0.1 | grep -c 'bytes from')"
            say sent "$(sha256sum </file)"
            nc 10.77.0.1 5000 </file || fail send
            """)
        sender.kernelWords = ["swiftlet.ip=10.77.0.2/24"]
        let sending = try start(sender, "backend=socket,path=\(socket)")
        // What is typed before a guest has opened its port is lost.
        for guest in [receiving, sending] { try guest.wait(for: "ready\n") }
        let status = try String(
            contentsOfFile: "/proc/\(tool.process.identifier)/status", encoding: .utf8)
        #expect(status.contains("NoNewPrivs:\t1"), "\(status)")
        #expect(status.contains("Seccomp:\t2"), "\(status)")
        sending.type("go on\n")
        try sending.finish()
        try receiving.finish()
        tool.process.send(SIGTERM)
        let end = try tool.waitForExit()

        #expect(try sending.told("carrier") == "1")
        #expect(try sending.number("ping") == 3)
        #expect(try receiving.told("received") == sending.told("sent"))
        #expect(end == 0)
        #expect(!scratch.exists("switch"))
        #expect(tool.errors.text.contains("port 1 is connected"))
    }

    @Test("a guest reaches the host's loopback through passt, and the host the guest by a forward")
    func throughPasst() throws {
        let route = try HostRoute()
        let listener = try TCPListener(address: "127.0.0.1")
        let forward = try TCPListener(address: "127.0.0.1").port
        var boot = Boot(
            """
            mkfifo /never
            echo ready
            read port
            nc \(route.gateway) "$port" <>/never >/file || fail receive
            say received "$(cat /file)"
            nc -l -p 8080 <>/never >/back || fail forward
            say back "$(cat /back)"
            """)
        boot.kernelWords = ["swiftlet.ip=\(route.address)", "swiftlet.gw=\(route.gateway)"]
        boot.use(.other)
        let guest = try start(
            boot, "backend=user,forward=[tcp:127.0.0.1:\(forward):8080]")
        try guest.wait(for: "ready\n")
        guest.type("\(listener.port)\n")
        let connection = try listener.accept()
        try HostCommand.run("sh", "-c", "echo from the host >&0", input: connection)
        close(connection)
        try guest.wait(for: "= received ")
        // Until the guest listens, passt takes connections and loses them.
        try waitUntil("the forward") {
            _ = try HostCommand([
                "bash", "-c", "echo through the forward >/dev/tcp/127.0.0.1/\(forward); sleep 1",
            ])
            return !guest.all("back").isEmpty
        }
        try guest.finish()
        #expect(try guest.told("received") == "from the host")
        #expect(try guest.told("back") == "through the forward")
        try waitUntil("passt's end") { Self.passts.isEmpty }
    }

    @Test("passt's end is the link's, and the monitor's end is passt's, however it ends")
    func ends() throws {
        _ = try HostRoute()
        let boot = Boot(
            """
            ip link set eth0 up
            say before "$(cat /sys/class/net/eth0/carrier)"
            echo ready
            read word
            # The driver learns of it by an interrupt, and tells the kernel a little later.
            for _ in $(seq 200); do
                [ "$(cat /sys/class/net/eth0/carrier)" = 1 ] || break
                usleep 50000
            done
            say after "$(cat /sys/class/net/eth0/carrier)"
            read word
            """)
        let guest = try start(boot, "backend=user")
        try guest.wait(for: "ready\n")
        let running = Self.passts
        #expect(running.count == 1)
        for process in running {
            let status = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
            #expect(status.contains("Seccomp:\t2") && status.contains("CapEff:\t0000000000000000"))
        }
        running.forEach { kill($0, SIGKILL) }
        try guest.wait(for: "passt is gone, signal 9 ended it", in: guest.errors)
        guest.type("go on\n")
        try guest.wait(for: "= after ")
        guest.type("go on\n")
        try guest.finish()
        #expect(try guest.told("before") == "1")
        #expect(try guest.told("after") == "0")

        let killed = try start(boot, "backend=user")
        try killed.wait(for: "ready\n")
        #expect(Self.passts.count == 1)
        killed.process.send(SIGKILL)
        _ = try killed.waitForExit()
        try waitUntil("passt's end") { Self.passts.isEmpty }
    }

    /// The processes of passt that run.
    private static var passts: [pid_t] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { name in
            guard let process = pid_t(name),
                let status = try? String(contentsOfFile: "/proc/\(name)/stat", encoding: .utf8),
                status.contains("(passt"), !status.contains(") Z ")
            else { return nil }
            return process
        }
    }
}

/// Where the host's packets go by default; passt gives its guest the same address. A host without
/// such a route, as the bed, gets one that leads nowhere.
final class HostRoute {
    let gateway: String
    /// The host's address with the length of its prefix.
    let address: String

    init() throws {
        let show = ["ip", "-4", "route", "show", "default"]
        if try HostCommand(show).output.isEmpty {
            try HostCommand.run("ip", "link", "add", "swl-dummy", "type", "dummy")
            try HostCommand.run("ip", "address", "add", "10.88.0.2/24", "dev", "swl-dummy")
            try HostCommand.run("ip", "link", "set", "swl-dummy", "up")
            try HostCommand.run(
                "ip", "route", "add", "default", "via", "10.88.0.1", "dev", "swl-dummy")
        }
        let route = try HostCommand(show).output
        let found = try #require(route.firstMatch(of: /via (\S+) dev (\S+)/))
        gateway = String(found.1)
        let interface = try HostCommand.run(
            "ip", "-4", "-o", "address", "show", "dev", String(found.2))
        address = String(try #require(interface.firstMatch(of: /inet (\S+)/)).1)
    }
}
