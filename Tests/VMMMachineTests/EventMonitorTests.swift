import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMMachine

@Suite("EventMonitor")
struct EventMonitorTests {
    private let clock = ManualClock()
    private let near: FileDescriptor
    private let far: FileDescriptor

    init() throws {
        (near, far) = try UnixSocket.streamPair()
    }

    private func monitor() throws -> EventMonitor {
        EventMonitor(try ByteStream(nonBlocking: near), clock: clock)
    }

    private func read() -> String {
        var bytes: [UInt8] = []
        while case .moved = far.receive(into: &bytes, limit: 1 << 12, isPeek: false) {}
        return String(decoding: bytes, as: UTF8.self)
    }

    private func records(_ text: String) throws -> [JSONValue] {
        try text.split(separator: "\n\n").map { try JSONParser.parse(Array($0.utf8)) }
    }

    @Test("a record is an indented object with the time since the start, and a blank line")
    func format() throws {
        let monitor = try monitor()
        clock.advance(nanoseconds: 2_000_000_007)
        monitor.tell(.vm, .booted)
        monitor.tell(.virtIODevice, .activated, [("id", "_disk\"0")])

        let text = read()
        #expect(
            text.hasPrefix(
                """
                {
                  "timestamp": {
                    "secs": 2,
                    "nanos": 7
                  },
                  "source": "vm",
                  "event": "booted",
                  "properties": null
                }


                """))
        let records = try records(text)
        #expect(records[1]["source"] == .string("virtio-device"))
        #expect(records[1]["properties"]?["id"] == .string("_disk\"0"))
    }

    @Test("a guest that resets without end fills no disk")
    func limits() throws {
        let monitor = try monitor()
        var text = ""
        for _ in 0..<3000 {
            monitor.tell(.virtIODevice, .reset, [("id", "_disk0")])
            text += read()
        }
        clock.advance(nanoseconds: 1_000_000_000)
        for _ in 0..<100 { monitor.tell(.vm, .rebooting, causedByGuest: true) }
        let later = try records(read())

        #expect(try records(text).count == 1000)
        #expect(later.count == 11 && later[0]["properties"]?["count"] == .string("2000"))
    }

    @Test("a guest that makes all the events it can does not keep the host's back")
    func hostIsTold() throws {
        let monitor = try monitor()
        for _ in 0..<3000 {
            monitor.tell(.virtIODevice, .reset)
            _ = read()
        }
        monitor.tell(.vm, .rebooting, causedByGuest: true)
        monitor.tell(.vm, .paused)
        let told = try records(read()).compactMap { $0["event"] }

        #expect(told.contains(.string("paused")) && !told.contains(.string("rebooting")))
    }

    @Test("a reader that stalls loses whole records, and is told how many")
    func stalls() throws {
        let monitor = try monitor()
        let count = 20_000
        for _ in 0..<count { monitor.tell(.vmm, .starting) }

        var text = read()
        while true {
            monitor.flush()
            let more = read()
            if more.isEmpty { break }
            text += more
        }
        monitor.tell(.vm, .shutdown)
        let kept = try records(text).count
        let last = try records(read())

        #expect(kept > 1000 && kept < count)
        #expect(last.count == 2)
        #expect(last[0]["event"] == .string("lost"))
        #expect(last[0]["properties"]?["count"] == .string("\(count - kept)"))
        #expect(last[1]["event"] == .string("shutdown"))
    }

    @Test("the end waits for a reader that takes what there is")
    func finishes() throws {
        let monitor = try monitor()
        for _ in 0..<1500 { monitor.tell(.vmm, .starting) }
        monitor.tell(.vmm, .shutdown)
        let far = far
        let received = Bytes()
        let reader = try HostThread(name: "reader", role: .tool) {
            while far.isReady(.readable, waitingMilliseconds: 2000) {
                var bytes: [UInt8] = []
                guard case .moved = far.receive(into: &bytes, limit: 1 << 14, isPeek: false) else {
                    return
                }
                received.append(bytes)
                if received.text.hasSuffix("\"shutdown\",\n  \"properties\": null\n}\n\n") {
                    return
                }
            }
        }
        monitor.finish()
        reader.join()
        #expect(received.text.hasSuffix("\"shutdown\",\n  \"properties\": null\n}\n\n"))
    }

    @Test("a reader that left is no trouble")
    func leaves() throws {
        let monitor = try monitor()
        far.shutDown([.receiving, .sending])
        for _ in 0..<100 { monitor.tell(.vm, .booting) }
        monitor.finish()
    }

    @Test(
        "what cannot be written to is a mistake",
        arguments: [
            (
                "path=/nonexistent/e",
                "--event-monitor path '/nonexistent/e': cannot be written: No such"
            ),
            ("path=/", "--event-monitor path '/': cannot be written: Is a directory"),
            (
                "fd=2147483647",
                "--event-monitor fd '2147483647': cannot be written: Bad file descriptor"
            ),
            ("fd=-1", "--event-monitor fd '-1': cannot be written: Bad file descriptor"),
            ("path=/a,fd=3", "--event-monitor: needs either"),
            ("path=", "--event-monitor: needs either"),
        ])
    func mistakes(value: String, message: String) throws {
        let spec = try #require(CommandLineArguments(["--event-monitor", value]).eventMonitor)
        let problem = #expect(throws: ConfigurationProblem.self) { try spec.open(clock) }
        #expect(problem?.description.hasPrefix(message) == true, "\(problem?.description ?? "")")
    }

    @Test("a descriptor that was inherited keeps its flags, and a file is emptied")
    func opens() throws {
        let path = NSTemporaryDirectory() + "events-\(UUID())"
        try Data("old".utf8).write(to: URL(filePath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        let spec = try #require(
            CommandLineArguments(["--event-monitor", "path=\(path)"]).eventMonitor)
        let monitor = try spec.open(clock)
        monitor.tell(.vmm, .starting)
        #expect(try records(String(contentsOfFile: path, encoding: .utf8)).count == 1)

        let inherited = try #require(
            CommandLineArguments(["--event-monitor", "fd=\(near.rawValue)"]).eventMonitor)
        let second = try inherited.open(clock)
        second.tell(.vmm, .starting)
        #expect(try records(read()).count == 1)
    }
}

/// Bytes that one thread collects and another one looks at.
private final class Bytes: @unchecked Sendable {
    private let lock = NSLock()
    private var bytes: [UInt8] = []

    func append(_ more: [UInt8]) { lock.withLock { bytes += more } }
    var text: String { lock.withLock { String(decoding: bytes, as: UTF8.self) } }
}
