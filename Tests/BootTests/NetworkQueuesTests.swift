import Foundation
import Testing

@Suite("Network queues", .guest)
struct NetworkQueuesBootTests {
    /// Opens a tap of one queue and becomes the monitor, which inherits it as descriptor 3.
    private static let opener = """
        import fcntl, os, struct, sys
        tap = os.open("/dev/net/tun", os.O_RDWR)
        # TUNSETIFF with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
        fcntl.ioctl(tap, 0x400454ca, struct.pack("16sH22x", sys.argv[1].encode(), 0x5002))
        os.dup2(tap, 3)
        os.set_inheritable(3, True)
        os.system(f"ip address add {sys.argv[2]} dev {sys.argv[1]}; ip link set {sys.argv[1]} up")
        os.execv(sys.argv[3], sys.argv[3:])
        """

    /// Receives what comes from a port into a pipe for sha256sum, once for each port it is told.
    private static let receivers = """
        read ports
        number=0
        for port in $ports; do
            number=$((number + 1))
            (nc $host $port </dev/null | sha256sum | cut -c 1-64 >/sum$number) &
        done
        wait
        for file in /sum*; do say sum "$(cat $file)"; done
        """

    @Test("two pairs of queues, jumbo frames, and flows side by side")
    func severalQueues() throws {
        let scratch = try Scratch()
        var boot = Boot(
            """
            host=192.168.221.1
            say queues "$(ls /sys/class/net/eth0/queues | xargs)"
            say mtu "$(cat /sys/class/net/eth0/mtu)"
            say jumbo "$(ping -c 3 -s 8900 -W 5 $host | grep -c 'bytes from')"
            say mac "$(awk '$1 == "192.168.221.1" { print $4 }' /proc/net/arp)"
            echo ready
            \(Self.receivers)
            """)
        boot.cpus = "boot=2"
        boot.kernelWords = ["swiftlet.ip=192.168.221.2/24"]
        boot.options = [
            "--net",
            "tap=swl-mq,ip=192.168.221.1,mask=255.255.255.0,num_queues=4,mtu=9000,"
                + "host_mac=12:34:56:78:9a:bc",
        ]
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")
        let mtu = try String(contentsOfFile: "/sys/class/net/swl-mq/mtu", encoding: .utf8)

        let sums = try send(4, megabytes: 8, from: "192.168.221.1", to: guest, scratch)
        try guest.finish()

        #expect(mtu == "9000\n")
        #expect(try guest.told("queues") == "rx-0 rx-1 tx-0 tx-1")
        #expect(try guest.number("mtu") == 9000)
        #expect(try guest.number("jumbo") == 3)
        #expect(try guest.told("mac") == "12:34:56:78:9a:bc")
        #expect(guest.all("sum").sorted() == sums.sorted())
    }

    @Test("a tap that somebody else opened serves by its descriptor")
    func inheritedDescriptor() throws {
        try expectService(
            ["python3", "-c", Self.opener, "swl-fd", "192.168.222.1/24"],
            subnet: "192.168.222", mac: "12:34:56:78:9a:bd")
    }

    /// Has `opener` become the monitor of a guest that is `.2` on descriptor 3, and the host `.1`.
    private func expectService(_ opener: [String], subnet: String, mac: String) throws {
        let scratch = try Scratch()
        var boot = Boot(
            """
            host=\(subnet).1
            say ping "$(ping -c 3 -W 5 $host | grep -c 'bytes from')"
            echo ready
            \(Self.receivers)
            """)
        boot.kernelWords = ["swiftlet.ip=\(subnet).2/24"]
        boot.options = ["--net", "fd=[3],mac=\(mac)"]
        let guest = try Guest(opener + boot.arguments(scratch), in: scratch)
        try guest.wait(for: "ready\n")

        let sums = try send(1, megabytes: 4, from: "\(subnet).1", to: guest, scratch)
        try guest.finish()

        #expect(try guest.number("ping") == 3)
        #expect(guest.all("sum") == sums)
    }

    /// Opens a macvtap and becomes the monitor, which inherits it as descriptor 3.
    private static let macvtapOpener = """
        import os, sys
        os.dup2(os.open(sys.argv[1], os.O_RDWR), 3)
        os.set_inheritable(3, True)
        os.execv(sys.argv[2], sys.argv[2:])
        """

    @Test("a macvtap serves by its descriptor: the guest is on the wire of the interface below it")
    func macvtap() throws {
        let mac = "12:34:56:78:9a:be"
        try HostCommand.run(
            "sh", "-ec",
            """
            ip link add swl-mh type veth peer name swl-mf
            ip link add link swl-mf name swl-mv address \(mac) type macvtap mode bridge
            ip address add 192.168.229.1/24 dev swl-mh
            for name in swl-mh swl-mf swl-mv; do ip link set $name up; done
            """)
        defer { _ = try? HostCommand.run("ip", "link", "delete", "swl-mh") }
        let index = try String(contentsOfFile: "/sys/class/net/swl-mv/ifindex", encoding: .utf8)
        try expectService(
            ["python3", "-c", Self.macvtapOpener, "/dev/tap\(index.dropLast())"],
            subnet: "192.168.229", mac: mac)
    }

    /// `ethtool -G` resets one queue after the other and sets it up with the new size.
    @Test(
        "rings change their size while bytes go through them, in either format",
        arguments: ["split", "packed"])
    func ringSizes(ring: String) throws {
        let scratch = try Scratch()
        let subnet = "192.168.\(ring == "split" ? 227 : 228)"
        var boot = Boot(
            """
            mount -t ext4 -o ro /dev/vda /mnt || fail "mount the tools"
            ethtool() { /mnt/lib/ld.so --library-path /mnt/lib /mnt/ethtool "$@"; }
            host=\(subnet).1
            echo ready
            \(Self.receivers) &
            for size in 64 128 32 256 64; do
                ethtool -G eth0 rx $size tx $size || fail "resize to $size"
                say sizes "$(ethtool -g eth0 | grep -E '^[RT]X:' | awk '{ print $2 }' | xargs)"
                ping -c 1 -W 10 $host >/dev/null || fail "ping with $size"
            done
            wait
            """)
        boot.kernelWords = ["swiftlet.ip=\(subnet).2/24"]
        boot.options = [
            "--platform", "ring=\(ring)", "--disk",
            "path=\(try Bed.guests)/tools,image_type=raw,readonly=on",
            "--net", "tap=swl-\(ring),ip=\(subnet).1,mask=255.255.255.0",
        ]
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")
        let sums = try send(1, megabytes: 4, from: "\(subnet).1", to: guest, scratch)
        try guest.finish()

        // The largest sizes first, which stay.
        #expect(
            guest.all("sizes") == [64, 128, 32, 256, 64].map { "256 256 \($0) \($0)" })
        #expect(guest.all("sum") == sums)
    }

    @Test("a limit holds in both directions")
    func limit() throws {
        let scratch = try Scratch()
        var boot = Boot(
            """
            host=192.168.223.1
            seconds() { cut -d ' ' -f 1 /proc/uptime; }
            echo ready
            read port
            begin=$(seconds)
            nc $host $port </dev/null >/file || fail receive
            say receiving "$begin $(seconds) $(wc -c </file)"
            read port
            begin=$(seconds)
            nc $host $port </file || fail send
            say sending "$begin $(seconds)"
            """)
        boot.kernelWords = ["swiftlet.ip=192.168.223.2/24"]
        boot.options = [
            "--net",
            "tap=swl-limit,ip=192.168.223.1,mask=255.255.255.0,bw_size=409600,bw_refill_time=4000",
        ]
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")
        let file = try scratch.file("data", Data(repeating: 0x55, count: 3 << 19))
        let sending = try TCPListener(address: "192.168.223.1")
        guest.type("\(sending.port)\n")
        let outgoing = try sending.accept()
        try HostCommand.run("sh", "-c", "exec cat \(file) >&0", input: outgoing)
        close(outgoing)
        let receiving = try TCPListener(address: "192.168.223.1")
        try guest.wait(for: "= receiving ")
        guest.type("\(receiving.port)\n")
        let incoming = try receiving.accept()
        try HostCommand.run("sh", "-c", "cat >/dev/null", input: incoming)
        close(incoming)
        try guest.finish()

        // 1.5 MiB at 102,400 bytes a second, without the full bucket's 4 seconds: 11.4 s and what
        // frames have for headers and sent again. How little more it is, unit tests prove with a
        // clock of their own: a loaded host has been seen to take three times as long.
        for key in ["receiving", "sending"] {
            let times = try guest.told(key).split(separator: " ").compactMap { Double($0) }
            let seconds = times[1] - times[0]
            #expect(seconds > 11.3 && seconds < 60, "\(key) took \(seconds) s")
        }
    }

    /// Sends random bytes by so many connections at once; their sums.
    private func send(
        _ count: Int, megabytes: Int, from address: String, to guest: Guest, _ scratch: Scratch
    ) throws -> [String] {
        let files = try (0..<count).map { number in
            let file = scratch("flow\(number)")
            try HostCommand.run(
                "dd", "if=/dev/urandom", "of=\(file)", "bs=1M", "count=\(megabytes)")
            return file
        }
        let listeners = try files.map { _ in try TCPListener(address: address) }
        guest.type(listeners.map { "\($0.port)" }.joined(separator: " ") + "\n")
        let connections = try listeners.map { try $0.accept() }
        let changed = NSCondition()
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer { close(null) }
        let senders = try zip(files, connections).map { file, connection in
            try ChildProcess(
                ["sh", "-c", "exec cat \(file) >&0"], input: connection, output: null,
                errors: null, changed: changed)
        }
        connections.forEach { close($0) }
        try waitUntil("all flows are sent") { senders.allSatisfy { $0.exitStatus != nil } }
        return try files.map { String(try HostCommand.run("sha256sum", $0).prefix(64)) }
    }
}
