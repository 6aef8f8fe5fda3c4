import Foundation
import Testing

/// iperf3 between guest and host, and what ethtool says in the guest.
@Suite("Networks under load", .guest)
struct NetworkLoadTests {
    /// `tool` runs a program of the tools disk, which is the only one. Serves until a line comes.
    private static let prelude = """
        mount -t ext4 -o ro /dev/vda /mnt || fail "mount the tools"
        tool() { program=$1; shift; /mnt/lib/ld.so --library-path /mnt/lib /mnt/$program "$@"; }
        serve() {
            tool iperf3 -s >/dev/null &
            until netstat -ltn | grep -q :5201; do sleep 0.1; done
            /traffic serve 7000 &
            read -r word
        }

        """

    /// A guest with the tools' disk and the shell functions `tool` and `serve`.
    static func boot(_ script: String, tools: String) -> Boot {
        var boot = Boot(prelude + script)
        boot.programs = ["traffic"]
        boot.options = ["--disk", "path=\(tools),image_type=raw,readonly=on"]
        return boot
    }

    private static func boot(_ script: String, interfaces: [String]) throws -> Boot {
        var boot = boot(script, tools: try Bed.guests + "/tools")
        boot.options += ["--net"] + interfaces
        return boot
    }

    /// What iperf3 has to say of one second; of UDP, 10 Mbit/s are asked for.
    private struct Load: CustomStringConvertible {
        let words: [String]
        var description: String { words.joined(separator: " ") }

        static let all = [
            Load(words: []), Load(words: ["-R"]), Load(words: ["-P", "4"]),
            Load(words: ["-P", "4", "-R"]), Load(words: ["-u", "-b", "10M"]),
            Load(words: ["-u", "-b", "10M", "-R"]),
        ]

        /// Bytes that the receiver got: how many depends on who else uses the machine. Between two
        /// clients the server closes its port for a moment.
        func run(to address: String) throws -> Int {
            let deadline = Date(timeIntervalSinceNow: Guest.patience)
            var output = ""
            repeat {
                output = try HostCommand(
                    ["iperf3", "-c", address, "-J", "-t", "1"] + words, within: 60
                ).output
            } while output.contains("Connection refused") && Date() < deadline
            let answer = try JSONSerialization.jsonObject(with: Data(output.utf8))
            let end = (answer as? [String: Any])?["end"] as? [String: Any]
            let sum = (end?["sum_received"] ?? end?["sum"]) as? [String: Any]
            return try #require(sum?["bytes"] as? Int, "iperf3 \(self): \(output)")
        }
    }

    @Test("TCP and UDP both ways, one flow and four, with offloads and without")
    func offloads() throws {
        let scratch = try Scratch()
        let guest = try Self.boot(
            """
            ip address add 192.168.225.2/24 dev eth1
            ip link set eth1 up
            for interface in eth0 eth1; do
                tool ethtool -k $interface | sed -n 's/^[[:space:]]*\\([a-z0-9-]*\\): \\(on\\|off\\).*/\\1 \\2/p' |
                    while read -r line; do say $interface "$line"; done
            done
            serve
            """,
            interfaces: [
                "tap=swl-load0,ip=192.168.224.1,mask=255.255.255.0",
                "tap=swl-load1,ip=192.168.225.1,mask=255.255.255.0,offload_csum=off",
            ]
        ).with(address: "192.168.224.2/24").start(scratch)
        try guest.wait(for: "ready\n")

        for address in ["192.168.224.2", "192.168.225.2"] {
            for load in Load.all {
                let count = try load.run(to: address)
                #expect(count > 0, "\(load) to \(address)")
            }
        }
        guest.type("end\n")
        try guest.finish()

        // Linux leaves UDP segmentation off until it is asked for.
        for feature in ["tx-checksumming", "tcp-segmentation-offload", "tx-tcp6-segmentation"] {
            #expect(guest.all("eth0").contains("\(feature) on"), "\(feature)")
            #expect(guest.all("eth1").contains("\(feature) off"), "\(feature)")
        }
    }

    @Test("jumbo frames on two pairs of queues, which ethtool counts and sets; round trips")
    func queues() throws {
        let scratch = try Scratch()
        var boot = try Self.boot(
            """
            pairs() { tool ethtool -l eth0 | awk '$1 == "Combined:" { print $2 }' | xargs; }
            say first "$(pairs)"
            tool ethtool -L eth0 combined 1 || fail "one pair"
            tool ethtool -L eth0 combined 2 || fail "two pairs"
            say second "$(pairs)"
            serve
            tool ethtool -S eth0 | sed 's/^ *//' | while read -r line; do say counter "$line"; done
            tool ethtool -L eth0 combined 3 2>/dev/null && fail "three pairs"
            tool ethtool -L eth0 combined 1 || fail "one pair"
            say third "$(pairs)"
            say jumbo "$(ping -c 3 -s 8900 -W 5 192.168.226.1 | grep -c 'bytes from')"
            """,
            interfaces: [
                "tap=swl-load2,ip=192.168.226.1,mask=255.255.255.0,num_queues=4,mtu=9000"
            ]
        ).with(address: "192.168.226.2/24")
        boot.cpus = "boot=2"
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")

        for load in Load.all {
            let count = try load.run(to: "192.168.226.2")
            #expect(count > 0, "\(load)")
        }
        let trips = try HostCommand.run(
            Bed.guests + "/traffic", "ping", "tcp:192.168.226.2:7000", "1000")
        guest.type("end\n")
        try guest.finish()

        #expect(trips.contains(#""trips""#), "\(trips)")
        #expect(try guest.told("first") == "2 2")
        #expect(try guest.told("second") == "2 2")
        #expect(try guest.told("third") == "2 1")
        #expect(try guest.number("jumbo") == 3)
        let counters = guest.all("counter")
        for queue in 0...1 {
            for direction in ["rx", "tx"] {
                let name = "\(direction)\(queue)_kicks: "
                #expect(counters.contains { $0.hasPrefix(name) }, "\(name)")
            }
        }
        #expect(counters.contains { $0.firstMatch(of: /^tx_kicks: [1-9]/) != nil }, "\(counters)")
    }
}

extension Boot {
    /// The first interface gets an address with the length of its prefix.
    fileprivate func with(address: String) -> Boot {
        var boot = self
        boot.kernelWords.append("swiftlet.ip=\(address)")
        return boot
    }
}
