import Testing
import VMMBase

@testable import VMMDevices

@Suite("SerialSpec")
struct SerialSpecTests {
    @Test(
        "each endpoint has its word",
        arguments: [
            ("off", .off), ("null", .null), ("tty", .tty), ("pty", .pty),
            ("file=/a", .file(path: "/a")), ("socket=/b", .socket(path: "/b")),
        ] as [(String, ConsoleEndpoint)])
    func endpoints(text: String, expected: ConsoleEndpoint) throws {
        let spec = try parse(text, as: SerialSpec.self).get()
        #expect(spec.endpoint == expected)
        #expect(spec.usesTerminal == (expected == .tty))
    }

    @Test(
        "mistakes are named with their value",
        arguments: [
            (
                "stdout",
                "--serial 'stdout': expected one of off, null, tty, pty, file=<path>, "
                    + "socket=<path>"
            ),
            (
                "mode=tty",
                "--serial 'mode': expected one of off, null, tty, pty, file=<path>, "
                    + "socket=<path>"
            ),
            ("file", "--serial 'file': needs a path: file=<path>"),
            ("socket=", "--serial 'socket': needs a path: socket=<path>"),
            ("tty=1", "--serial 'tty': takes no value"),
            ("tty,id=x", "--serial 'id': unknown key; nothing more goes here"),
            ("tty,tty", "--serial 'tty,tty': the key 'tty' is given twice"),
            ("", "--serial: expected key=value, separated by commas"),
        ])
    func mistakes(text: String, expected: String) {
        #expect(problems(text, as: SerialSpec.self) == [expected])
    }
}

@Suite("ConsoleSpec")
struct ConsoleSpecTests {
    @Test("the endpoint comes first, the place after it")
    func everyKey() throws {
        let spec = try parse("file=/a,id=c,pci_device_id=4", as: ConsoleSpec.self).get()
        #expect(spec.endpoint == .file(path: "/a"))
        #expect(spec.id == "c" && spec.place.device == 4)
    }

    @Test(
        "mistakes are named with their value",
        arguments: [
            (
                "id=c,tty",
                "--console 'id': expected one of off, null, tty, pty, file=<path>, "
                    + "socket=<path>"
            ),
            (
                "tty,pci_device_id=256",
                "--console pci_device_id '256': expected a whole number "
                    + "from 0 to 255"
            ),
            ("tty,id", "--console 'id': needs a value: id=..."),
        ])
    func mistakes(text: String, expected: String) {
        #expect(problems(text, as: ConsoleSpec.self) == [expected])
    }

    @Test("a second endpoint is refused")
    func secondEndpoint() {
        #expect(problems("tty,pty", as: ConsoleSpec.self).count == 1)
    }
}

@Suite("DebugConsoleSpec")
struct DebugConsoleSpecTests {
    @Test(
        "the port is 0xe9 unless it is given",
        arguments: zip(["tty", "tty,iobase=0x402", "null,iobase=0xFFFF"], [0xe9, 0x402, 0xffff]))
    func port(text: String, expected: UInt16) throws {
        #expect(try parse(text, as: DebugConsoleSpec.self).get().port == expected)
    }

    @Test(
        "a port that is no hex number, or too large, is refused",
        arguments: [
            "iobase", "iobase=", "iobase=233", "iobase=0x", "iobase=0x10000", "iobase=0x+9",
            "iobase=0x-0", "iobase=0xg",
        ])
    func badPort(text: String) {
        let found = problems("tty," + text, as: DebugConsoleSpec.self)
        #expect(found.count == 1)
        #expect(found.first?.hasSuffix("expected a port number from 0x0 to 0xffff") == true)
    }

    @Test("nothing else goes behind it", arguments: ["tty,port=1", "tty,iobase=0xe9,id=x"])
    func rest(text: String) {
        #expect(
            problems(text, as: DebugConsoleSpec.self).first?
                .hasSuffix("unknown key; nothing more goes here") == true)
    }
}

@Suite("EntropySpec")
struct EntropySpecTests {
    @Test("every key is understood, and none is needed")
    func everyKey() throws {
        let spec = try parse("src=/dev/random,id=r,pci_device_id=5", as: EntropySpec.self).get()
        #expect(spec.source == "/dev/random" && spec.id == "r" && spec.place.device == 5)
        #expect(EntropySpec.standard?.source == nil)
    }

    @Test("an unknown key is named")
    func unknown() {
        #expect(
            problems("path=/dev/random", as: EntropySpec.self)
                == ["--rng 'path': unknown key; known are src, id, pci_segment, pci_device_id"])
    }
}
