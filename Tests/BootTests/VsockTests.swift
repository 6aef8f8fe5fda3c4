import Foundation
import Testing

/// `vsock-peer` in the guest serves two ports and runs what is typed; the host's ends are here.
@Suite("Vsock", .guest)
struct VsockTests {
    static let port = 1000
    /// Another process: what stops on one port must not stop the other.
    private static let otherPort = 1001
    /// In bytes. A gigabyte takes some minutes in the bed: SWIFTLET_VSOCK_MIB=1024 asks for it.
    private static let bulk =
        (ProcessInfo.processInfo.environment["SWIFTLET_VSOCK_MIB"].flatMap { Int($0) } ?? 64) << 20
    /// A guest's kernel refuses what waits for a program beyond 4096 connections by default.
    private static let script = """
        echo 20000 >/proc/sys/net/core/somaxconn
        /vsock-peer serve \(port) &
        /vsock-peer serve \(otherPort) &
        while read -r words; do
            case $words in
            end) break ;;
            reboot) touch /do-reboot; break ;;
            esac
            /vsock-peer $words
        done
        """

    /// A guest that listens, and its socket.
    static func start(
        _ scratch: Scratch, _ connection: Connection = .standard, memory: String = "size=256M"
    ) throws -> (guest: Guest, socket: String) {
        var boot = Boot(script)
        boot.use(connection)
        boot.programs = ["vsock-peer"]
        boot.memory = memory
        boot.options += ["--vsock", "cid=3,socket=\(scratch("v"))"]
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n", times: 2)
        return (guest, scratch("v"))
    }

    static func stop(_ guest: Guest, _ scratch: Scratch) throws {
        #expect(!guest.console.text.contains("failed:"))
        guest.type("end\n")
        try guest.finish()
        #expect(!scratch.exists("v"))
    }

    /// A program of the host echoes some bytes with the guest's.
    static func echo(_ socket: String, port: Int = port, count: Int) throws -> Int {
        let stream = try UnixStream(socket, port: port)
        try stream.send("E 0\n")
        let sending = Background {
            try stream.sendPattern(count)
            stream.endSending()
        }
        let received = try stream.receivePattern()
        try sending.value()
        return received
    }

    @Test(
        "bytes go both ways, from either side, and none is lost at a half-close",
        arguments: [(.standard, bulk), (.other, 8 << 20)] as [(Connection, Int)])
    func transfers(connection: Connection, bulk: Int) throws {
        let scratch = try Scratch()
        let (guest, socket) = try Self.start(scratch, connection)

        // Host to guest.
        #expect(try Self.echo(socket, count: 3_000_001) == 3_000_001)
        var start = Date()
        let putting = try UnixStream(socket, port: Self.port)
        try putting.send("P 0\n")
        try putting.sendPattern(bulk)
        putting.endSending()
        #expect(try putting.line() == "ok \(bulk)")
        Self.report("host to guest", bulk, start)
        start = Date()
        let getting = try UnixStream(socket, port: Self.port)
        try getting.send("G \(bulk)\n")
        #expect(try getting.receivePattern() == bulk)
        Self.report("guest to host", bulk, start)

        // Guest to host.
        let server = try UnixServer(socket + "_80")
        guest.type("get 80 5000001\n")
        let reader = try server.accept()
        #expect(try reader.line() == "G 5000001")
        try reader.sendPattern(5_000_001)
        reader.endSending()
        try guest.wait(for: "get 5000001\n")
        guest.type("put 80 5000001\n")
        let writer = try server.accept()
        #expect(try writer.line() == "P 5000001")
        #expect(try writer.receivePattern() == 5_000_001)
        guest.type("echo 80 3000001\n")
        #expect(try server.accept().echo() == 3_000_001)
        try guest.wait(for: "echo 3000001\n")

        // Nobody there, on either side; nonsense.
        guest.type("refused 81\n")
        try guest.wait(for: "refused \(ECONNRESET)\n")
        let unanswered = try UnixStream(to: socket)
        try unanswered.send("CONNECT 4242\n")
        #expect(try unanswered.line() == "")
        let nonsense = try UnixStream(to: socket)
        try nonsense.send("GET / HTTP/1.1\r\n\r\n")
        #expect(try nonsense.line() == "")
        try Self.stop(guest, scratch)
    }

    private static func report(_ direction: String, _ count: Int, _ start: Date) {
        let seconds = Date().timeIntervalSince(start)
        print(
            "boot tests: vsock \(direction): \(count >> 20) MiB in "
                + String(format: "%.1f s, %.1f MiB/s", seconds, Double(count >> 20) / seconds))
    }

    @Test("a reader that stops, on either side, stops its own connection only")
    func stoppedReaders() throws {
        let scratch = try Scratch()
        let (guest, socket) = try Self.start(scratch, .other)
        // More than all buffers on the way have room for.
        let count = 3 << 20

        // The host does not read.
        let unread = try UnixStream(socket, port: Self.port)
        try unread.send("G \(count)\n")
        #expect(try Self.echo(socket, count: 100_000) == 100_000)
        #expect(try unread.receivePattern(100_000) == 100_000)
        #expect(try Self.echo(socket, count: 100_000) == 100_000)
        // The guest's server pauses, and so does a client of it; the other port goes on.
        let waiting = try UnixStream(socket, port: Self.otherPort)
        let sending = Background {
            try waiting.send("S 2000\n")
            try waiting.sendPattern(count)
            waiting.endSending()
            return try waiting.line()
        }
        #expect(try Self.echo(socket, count: 100_000) == 100_000)
        #expect(try sending.value() == "ok \(count)")
        let rest = try UnixStream(socket, port: Self.port)
        try rest.send("G \(count)\n")
        #expect(try rest.receivePattern() == count)
        try Self.stop(guest, scratch)
    }

    @Test("a reboot ends connections, and the next life has new ones")
    func reboot() throws {
        let scratch = try Scratch()
        let (guest, socket) = try Self.start(scratch)
        let stream = try UnixStream(socket, port: Self.port)
        try stream.send("E 0\nhello\n")
        #expect(try stream.line() == "hello")
        guest.type("reboot\n")
        #expect(try stream.line() == "")
        try guest.wait(for: "ready\n", times: 4)
        #expect(try Self.echo(socket, count: 100_000) == 100_000)
        try Self.stop(guest, scratch)
    }

    @Test(
        "what cannot be is told in one sentence",
        arguments: [
            ("cid=2,socket=v", "--vsock cid '2': is reserved"),
            ("cid=3", "--vsock"),
            ("cid=3,socket=/nonexistent/v", "No such file or directory"),
            ("cid=3,socket=/dev/null", "exists and is not a socket"),
        ])
    func mistakes(value: String, words: String) throws {
        let scratch = try Scratch()
        var boot = Boot("true")
        boot.options = ["--vsock", value]
        let guest = try boot.start(scratch)
        #expect(try guest.waitForExit() == 1)
        let lines = guest.errors.text.split(separator: "\n")
        #expect(lines.count == 1 && guest.errors.text.contains(words))
    }
}

/// With all of the bed to itself: each connection costs a guest's interrupts.
@Suite("Vsock connections", .aloneInTheBed)
struct VsockConnectionTests {
    /// 10,000 take four minutes in a quiet bed: SWIFTLET_VSOCK_CONNECTIONS=10000 asks for them.
    private static let connections =
        ProcessInfo.processInfo.environment["SWIFTLET_VSOCK_CONNECTIONS"].flatMap { Int($0) }
        ?? 1000

    @Test("very many connections at once, from either side")
    func many() throws {
        let count = Self.connections
        // The bed's commands run as root; the monitor inherits what it may raise its limit to.
        var limit = rlimit(rlim_cur: 65536, rlim_max: 65536)
        #expect(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
        let scratch = try Scratch()
        let (guest, socket) = try VsockTests.start(scratch, memory: "size=1G")

        var streams: [UnixStream] = []
        var start = Date()
        for number in 0..<count {
            let stream = try UnixStream(to: socket)
            try stream.send("CONNECT \(VsockTests.port)\nE 0\n\(number)\n")
            streams.append(stream)
        }
        for (number, stream) in streams.enumerated() {
            let answer = try? stream.line()
            let echoed = try? stream.line()
            try #require(
                answer?.hasPrefix("OK ") == true && echoed == "\(number)",
                "\(number): \(answer ?? "-"), \(echoed ?? "-"); \(guest.errors.text)")
        }
        print("boot tests: vsock: \(count) from the host in \(Date().timeIntervalSince(start)) s")
        streams = []
        // The guest hears of all those ends first.
        #expect(try VsockTests.echo(socket, count: 1) == 1)

        start = Date()
        let server = try UnixServer(socket + "_80")
        guest.type("many 80 \(count)\n")
        for _ in 0..<count {
            let stream = try server.accept()
            streams.append(stream)
            try stream.giveBackOne()
        }
        try guest.wait(for: "many \(count)\n")
        print("boot tests: vsock: \(count) from the guest in \(Date().timeIntervalSince(start)) s")
        try VsockTests.stop(guest, scratch)
    }
}
