import Foundation
import Testing

/// `backend=socket` with another program, and with another of us, at the far end.
@Suite("Network sockets", .aloneInTheBed)
struct SocketPeerTests {
    private let scratch: Scratch

    init() throws {
        scratch = try Scratch()
    }

    /// Gives the interface with this address of its own an address on the network.
    private static let up = """
        up() {
            for file in /sys/class/net/eth*/address; do
                name=${file%/address}
                name=${name##*/}
                if [ "$(cat $file)" = "$1" ]; then
                    ip address add $2 dev $name
                    ip link set $name up
                fi
            done
        }
        """

    /// Answers pings, and gives what comes to port 5000 on an address its sum.
    private static func receiver(_ addresses: [(mac: String, address: String)]) -> String {
        let upping = addresses.map { "up \($0.mac) \($0.address)/24" }.joined(separator: "\n")
        let receiving = addresses.map { _ in
            """
            nc -l -p 5000 <>/never >/file || fail receive
            say received "$(sha256sum </file)"
            """
        }.joined(separator: "\n")
        return "\(up)\n\(upping)\nmkfifo /never\necho ready\n\(receiving)"
    }

    /// Pings each of the addresses, and sends it a file.
    private static func sender(
        _ addresses: [(mac: String, address: String)], to others: [String]
    ) -> String {
        let upping = addresses.map { "up \($0.mac) \($0.address)/24" }.joined(separator: "\n")
        return """
            \(up)
            \(upping)
            seq 1 40000 >/file
            echo ready
            read word
            for address in \(others.joined(separator: " ")); do
                say ping "$(ping -c 3 -W 10 $address | grep -c 'bytes from')"
                say large "$(ping -c 3 -s 1400 -W 10 $address | grep -c 'bytes from')"
                nc $address 5000 </file || fail send
                say sent "$(sha256sum </file)"
            done
            """
    }

    private func expectAll(_ receiving: Guest, _ sending: Guest, wires: Int) throws {
        for guest in [receiving, sending] { try guest.wait(for: "ready\n") }
        sending.type("go on\n")
        try sending.finish()
        try receiving.finish()
        let threes = Array(repeating: "3", count: wires)
        #expect(sending.all("ping") == threes && sending.all("large") == threes)
        #expect(receiving.all("received").count == wires)
        #expect(receiving.all("received") == sending.all("sent"))
    }

    @Test(
        "QEMU's guest and ours reach each other by a stream and by datagrams",
        .enabled(if: Bed.peer != nil))
    func qemu() throws {
        let ours = ["12:34:56:78:9a:01", "12:34:56:78:9a:02"]
        let theirs = ["12:34:56:78:9a:11", "12:34:56:78:9a:12"]
        let (stream, near, far) = (scratch("stream"), scratch("near"), scratch("far"))
        var receiver = Boot(
            Self.receiver([(ours[0], "10.78.1.1"), (ours[1], "10.78.2.1")]))
        receiver.options = [
            "--net", "backend=socket,path=\(stream),mode=server,mac=\(ours[0])",
            "backend=socket,framing=dgram,path=\(far),local_path=\(near),mac=\(ours[1])",
        ]
        let receiving = try receiver.start(scratch)
        try waitUntil("our sockets") { scratch.exists("stream") && scratch.exists("near") }
        let sender = Boot(
            Self.sender(
                [(theirs[0], "10.78.1.2"), (theirs[1], "10.78.2.2")],
                to: ["10.78.1.1", "10.78.2.1"]))
        let sending = try Guest(
            [
                try #require(Bed.peer), "-M", "microvm,rtc=on", "-enable-kvm", "-cpu", "host",
                "-m", "256", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
                "-kernel", try sender.kernel.path, "-initrd", try sender.initramfs(scratch),
                "-append", "console=ttyS0 quiet panic=-1",
                "-netdev", "stream,id=s,server=off,addr.type=unix,addr.path=\(stream)",
                "-device", "virtio-net-device,netdev=s,mac=\(theirs[0])",
                "-netdev",
                "dgram,id=d,local.type=unix,local.path=\(far),remote.type=unix,remote.path=\(near)",
                "-device", "virtio-net-device,netdev=d,mac=\(theirs[1])",
            ], in: scratch)
        try expectAll(receiving, sending, wires: 2)
    }

    @Test("two of our guests reach each other by datagrams, whatever their devices are like")
    func datagrams() throws {
        let (mac, other) = ("12:34:56:78:9a:03", "12:34:56:78:9a:13")
        var receiver = Boot(Self.receiver([(mac, "10.78.3.1")]))
        var sender = Boot(Self.sender([(other, "10.78.3.2")], to: ["10.78.3.1"]))
        receiver.use(.other)
        let (one, two) = (scratch("one"), scratch("two"))
        let wire = "backend=socket,framing=dgram"
        receiver.options += ["--net", "\(wire),path=\(two),local_path=\(one),mac=\(mac)"]
        sender.options += ["--net", "\(wire),path=\(one),local_path=\(two),mac=\(other)"]
        let receiving = try receiver.start(scratch)
        let sending = try sender.start(scratch)
        try expectAll(receiving, sending, wires: 1)
        #expect(!scratch.exists("one") && !scratch.exists("two"))
    }
}
