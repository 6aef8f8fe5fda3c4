import Foundation
import Testing

@Suite("Consoles", .guest)
struct ConsoleTests {
    /// Brings the virtio console up as the script's own terminal.
    private static let onVirtIOConsole = "exec </dev/hvc0 >/dev/hvc0 2>&1\n"

    @Test("the serial port on a terminal is a shell, and the terminal is put back")
    func serialOnTerminal() throws {
        var boot = Boot()
        boot.onTerminal = true
        let guest = try boot.start(Scratch())
        try guest.wait(for: "guest# ")
        #expect(guest.terminalSettings != guest.firstSettings, "raw while the guest runs")

        guest.type("echo answer-$((6 * 7))\n")
        try guest.wait(for: "answer-42")
        // Control-C goes to the guest.
        try guest.wait(for: "guest# ", times: 2)
        guest.type("echo block-$((6 * 7)); sleep 1000\n")
        try guest.wait(for: "block-42")
        guest.type("\u{3}")
        try guest.wait(for: "guest# ", times: 3)
        guest.type("echo again-$((6 * 7))\n")
        try guest.wait(for: "again-42")
        guest.type("exit\n")

        #expect(try guest.waitForExit() == 0)
        #expect(guest.terminalSettings == guest.firstSettings)
    }

    @Test("the virtio console on a terminal is a shell, without a serial port")
    func virtIOOnTerminal() throws {
        var boot = Boot(
            Self.onVirtIOConsole + """
                say serial "$(grep -c 'uart:16550A' /proc/tty/driver/serial)"
                say size "$(stty size)"
                setsid -c sh
                """)
        boot.serial = "off"
        // Without the option the console is on the terminal.
        boot.console = nil
        boot.consoleWords = ["console=hvc0"]
        boot.onTerminal = true
        let guest = try boot.start(Scratch())
        try guest.wait(for: "# ")

        guest.type("echo answer-$((6 * 7))\n")
        try guest.wait(for: "answer-42")
        try guest.resizeTerminal(columns: 91, rows: 27)
        // The guest's driver learns of it by an interrupt of its own.
        guest.type(
            "until [ \"$(stty size)\" = '27 91' ]; do usleep 20000; done; echo fits-$((6 * 7))\n")
        try guest.wait(for: "fits-42")
        guest.type("poweroff -f\n")

        #expect(try guest.waitForExit() == 0)
        #expect(guest.terminalSettings == guest.firstSettings)
        #expect(try guest.told("size") == "40 123")
        #expect(try guest.number("serial") == 0)
    }

    @Test("the serial port and the virtio console write files, the debug ports the log")
    func files() throws {
        let scratch = try Scratch()
        let stages = [UInt8](arrayLiteral: 0x05, 0x65)
        var boot = Boot(
            """
            echo on the serial port
            seq 1 500
            (\(Self.onVirtIOConsole)echo on the virtio console; seq 1 500)
            out() { printf "\\\\$1" | dd of=/dev/port bs=1 seek="$2" conv=notrunc 2>&1; }
            for byte in 144 145 142 165 147; do out "$byte" 233; done
            for byte in \(stages.map { String($0, radix: 8) }.joined(separator: " ")); do
                out "$byte" 128
            done
            """)
        // The others have no /dev/port.
        boot.kernel = Kernel(version: .generic, format: .bzImage)
        boot.serial = "file=\(scratch("serial"))"
        boot.console = "file=\(scratch("console"))"
        // Else Linux fills the log with its own writes to port 0x80.
        boot.kernelWords = ["io_delay=none"]
        boot.options = [
            "--debug-console", "file=\(scratch("debug"))", "--log-file", scratch("log"),
        ]
        let guest = try boot.start(scratch)

        #expect(try guest.waitForExit() == 0)
        let numbers = (1...500).map { "\($0)\n" }.joined()
        #expect(try scratch.text("serial").contains("on the serial port\n" + numbers))
        #expect(try scratch.text("serial").contains("swiftlet-guest: exit 0\n"))
        #expect(try scratch.text("console") == "on the virtio console\n" + numbers)
        #expect(try scratch.text("debug") == "debug")
        for stage in ["Firmware code 0x05]", "Userspace code 0x65]"] {
            #expect(try scratch.text("log").contains(stage))
        }
        #expect(guest.console.text == "")
        for name in ["serial", "console", "debug", "log"] {
            let attributes = try FileManager.default.attributesOfItem(atPath: scratch(name))
            #expect(attributes[.posixPermissions] as? Int == 0o600, "\(name)")
        }
    }

    @Test("the serial port and the virtio console on pseudo-terminals answer")
    func pseudoTerminals() throws {
        let scratch = try Scratch()
        var boot = Boot(
            """
            (\(Self.onVirtIOConsole)echo ready; read word; echo "console heard $word") &
            echo ready
            read word
            echo "serial heard $word"
            wait
            """)
        boot.serial = "pty"
        boot.console = "pty"
        boot.options = ["-v"]
        let guest = try boot.start(scratch)
        try guest.wait(for: "console at /dev/pts/", times: 2, in: guest.errors)
        let names = guest.errors.text.matches(of: /console at (\/dev\/pts\/\d+)/).map { $0.1 }
        try #require(names.count == 2)

        // Each copies what it reads to a file; the words tell which is which.
        let ends = try names.map { try Endpoint.terminal(String($0)) }
        for end in ends {
            try waitUntil("a prompt") { end.capture.text.contains("ready\n") }
            end.type("hello\n")
        }

        #expect(try guest.waitForExit() == 0)
        let heard = ends.map(\.capture.text)
        #expect(heard.contains { $0.contains("serial heard hello\n") })
        #expect(heard.contains { $0.contains("console heard hello\n") })
    }

    @Test(
        "a console on a socket answers each client, and the socket goes", arguments: [true, false])
    func socket(isSerial: Bool) throws {
        let scratch = try Scratch()
        var boot = Boot(
            (isSerial ? "" : Self.onVirtIOConsole) + """
                for turn in 1 2; do
                    [ $turn = 2 ] || echo ready
                    read word
                    echo "turn $turn: heard $word"
                done
                """)
        let endpoint = "socket=\(scratch("socket"))"
        if isSerial { boot.serial = endpoint } else { boot.console = endpoint }
        let guest = try boot.start(scratch)
        try waitUntil("the socket is there") { scratch.exists("socket") }

        for turn in 1...2 {
            let client = try Endpoint.socket(scratch("socket"))
            // Before the guest has opened its port, input would be lost.
            if turn == 1 {
                try waitUntil("a prompt") { client.capture.text.contains("ready\n") }
            }
            client.type("word\(turn)\n")
            try waitUntil("turn \(turn)") {
                client.capture.text.contains("turn \(turn): heard word\(turn)\n")
            }
        }

        #expect(try guest.waitForExit() == 0)
        #expect(!scratch.exists("socket"))
    }

    /// What nobody takes is kept up to a bound, and then the oldest goes.
    @Test("output that nobody reads does not hold the guest up")
    func unread() throws {
        let scratch = try Scratch()
        var boot = Boot(
            """
            (\(Self.onVirtIOConsole)stty raw
            dd if=/dev/zero bs=64k count=100 | tr '\\0' x
            echo last) || fail write
            say wrote
            read word
            """)
        boot.console = "socket=\(scratch("socket"))"
        let guest = try boot.start(scratch)
        try guest.wait(for: "= wrote")
        let client = try Endpoint.socket(scratch("socket"))
        try waitUntil("the last of it") { client.capture.text.hasSuffix("xlast\n") }
        guest.type("\n")
        try guest.finish()
        let count = client.capture.text.utf8.count
        #expect(count > 512 << 10 && count <= 2 << 20, "\(count) bytes were kept")
    }

    @Test("a guest does without any console")
    func null() throws {
        let scratch = try Scratch()
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        var boot = Boot(
            """
            grep -c 'uart:16550A' /proc/tty/driver/serial >/dev/vda
            sync
            """)
        boot.serial = "null"
        boot.console = "off"
        boot.options = ["--disk", "path=\(disk),image_type=raw"]
        let guest = try boot.start(scratch)

        #expect(try guest.waitForExit() == 0)
        #expect(guest.console.text + guest.errors.text == "")
        #expect(try scratch.text("disk").hasPrefix("1\n"), "the guest ran and has the port")
    }
}
