import Foundation
import Testing

@Suite("Network", .guest)
struct NetworkTests {
    /// Offsets in a virtio device's feature bits, as sysfs shows them.
    private enum Feature: Int {
        case checksum = 0
        case guestChecksum = 1
        case guestTCP4 = 7
        case hostTCP4 = 11
        case mergeable = 15
    }

    @Test(
        "100 MB go through the tap both ways unharmed, and without offloads 20 MB",
        arguments: [
            (1, 100, "offload_csum=on"),
            (2, 20, "offload_csum=off,offload_tso=off,offload_ufo=off"),
        ])
    func transfer(number: Int, megabytes: Int, offloads: String) throws {
        let scratch = try Scratch()
        let subnet = "192.168.\(200 + number)"
        let mac = "12:34:56:78:9a:0\(number)"
        let sent = scratch("sent")
        try Self.makeFile(sent, megabytes: megabytes)
        var boot = Boot(
            """
            say mac "$(cat /sys/class/net/eth0/address)"
            say features "$(cat /sys/class/net/eth0/device/features)"
            say ping "$(ping -c 3 -W 5 \(subnet).1 | grep -c 'bytes from')"
            say large "$(ping -c 1 -s 1400 -W 5 \(subnet).1 | grep -c 'bytes from')"
            echo ready
            read port
            nc \(subnet).1 "$port" </dev/null >/file || fail receive
            say received "$(sha256sum </file)"
            read port
            nc \(subnet).1 "$port" </file || fail send
            """)
        boot.memory = "size=512M"
        boot.kernelWords = ["swiftlet.ip=\(subnet).2/24"]
        boot.options = [
            "--net",
            "tap=swl-tcp\(number),ip=\(subnet).1,mask=255.255.255.0,mac=\(mac),\(offloads)",
        ]
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")

        let sending = try TCPListener(address: "\(subnet).1")
        guest.type("\(sending.port)\n")
        let outgoing = try sending.accept()
        try HostCommand.run(
            "sh", "-c", "exec cat \(sent) >&0", input: outgoing)
        close(outgoing)
        let receiving = try TCPListener(address: "\(subnet).1")
        try guest.wait(for: "= received ")
        guest.type("\(receiving.port)\n")
        let incoming = try receiving.accept()
        let returned = try HostCommand.run("sha256sum", input: incoming).prefix(64)
        close(incoming)
        try guest.finish()

        let expected = try HostCommand.run("sha256sum", sent).prefix(64)
        #expect(try guest.told("received").prefix(64) == expected)
        #expect(returned == expected)
        #expect(try guest.told("mac") == mac)
        #expect(try guest.number("ping") == 3)
        #expect(try guest.number("large") == 1)
        let features = try Array(guest.told("features"))
        for feature in [Feature.checksum, .guestChecksum, .guestTCP4, .hostTCP4] {
            #expect(features[feature.rawValue] == (number == 1 ? "1" : "0"), "\(feature)")
        }
        #expect(features[Feature.mergeable.rawValue] == "1")
        #expect(try !Bed.interfaces.contains("swl-tcp\(number)"))
    }

    /// Random bytes are dear in the bed: one megabyte again and again, each with its number.
    private static func makeFile(_ path: String, megabytes: Int) throws {
        var block = Data(count: 1_000_000)
        let random = open("/dev/urandom", O_RDONLY | O_CLOEXEC)
        block.withUnsafeMutableBytes { _ = read(random, $0.baseAddress, $0.count) }
        close(random)
        _ = FileManager.default.createFile(atPath: path, contents: nil)
        let file = try #require(FileHandle(forWritingAtPath: path))
        for number in 0..<megabytes {
            block.replaceSubrange(0..<8, with: Data(String(format: "%08d", number).utf8))
            try file.write(contentsOf: block)
        }
        try file.close()
    }

    @Test("taps get names by themselves, and go with the monitor")
    func automaticNames() throws {
        let before = try Bed.interfaces
        var boot = Boot(
            """
            say interfaces "$(ls /sys/class/net | xargs)"
            say macs "$(cat /sys/class/net/eth*/address | xargs)"
            echo ready
            read word
            """)
        boot.options = ["--net", "queue_size=64", "queue_size=1024", "-v"]
        let guest = try boot.start(Scratch())
        try guest.wait(for: "ready\n")

        let names = guest.errors.text.matches(of: /: tap (\S+)/).map { String($0.1) }
        let during = try Bed.interfaces
        #expect(Set(names).count == 2)
        #expect(during.isSuperset(of: names))
        guest.type("go on\n")
        try guest.finish()

        #expect(try guest.told("interfaces") == "eth0 eth1 lo")
        let macs = try guest.told("macs").split(separator: " ")
        #expect(Set(macs).count == 2)
        #expect(try Bed.interfaces.isDisjoint(with: Set(names).subtracting(before)))
    }
}

/// A TCP port on one address of the host.
final class TCPListener {
    let port: UInt16
    private let descriptor: Int32

    init(address text: String) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        inet_pton(AF_INET, text, &address.sin_addr)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let result = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) | listen(descriptor, 1)
                    | getsockname(descriptor, $0, &length)
            }
        }
        guard result == 0 else {
            throw HostCommand.Failure(description: "no port on \(text): errno \(errno)")
        }
        self.descriptor = descriptor
        port = UInt16(bigEndian: address.sin_port)
    }

    deinit { close(descriptor) }

    /// The next connection. The caller closes it.
    func accept(within seconds: Double = Guest.patience) throws -> Int32 {
        var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&request, 1, Int32(seconds * 1000)) == 1 else {
            throw HostCommand.Failure(description: "nobody connected to port \(port)")
        }
        let connection = Glibc.accept(descriptor, nil, nil)
        _ = fcntl(connection, F_SETFD, FD_CLOEXEC)
        return connection
    }
}
