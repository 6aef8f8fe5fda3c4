import Foundation
import Synchronization
import Testing
import VMMBase
import VMMBus
import VMMHost

@testable import VMMMachine
@testable import VMMServer

/// A machine that only says what was done with it.
private final class FakeMachine: BootableMachine {
    private let tell: @Sendable (String) -> Void
    private(set) var life = 0
    let deviceTree: DeviceTree? = DeviceTree()
    let counters = JSONValue.object([.init("_disk0", .object([.init("read_ops", .number("7"))]))])

    init(_ tell: @escaping @Sendable (String) -> Void) {
        self.tell = tell
        tell("open")
    }

    func begin(notify: @escaping @Sendable (MachineEvent, Int) -> Void) {
        life += 1
        tell("begin \(life)")
    }
    func end() { tell("end") }
    func finish() { tell("finish") }
    func coreDump() -> @Sendable (_ path: String, _ goesOn: () -> Bool) throws -> Void {
        { [tell] path, goesOn in
            if path == "/full" { throw HostError("write", path, code: ENOSPC) }
            tell("dump \(path)")
            // One that takes its time.
            while path == "/slow", goesOn() { usleep(1000) }
            tell("dumped")
        }
    }

    func pause() { tell("pause") }
    func resume() { tell("resume") }
    func terminalResized() {}
    func pressPowerButton() { tell("power button") }
    func injectNMI() { tell("nmi") }

    func opener(
        ofNewIn configuration: inout MachineConfiguration
    ) throws -> @Sendable () throws -> OpenedDevice {
        let added = try #require(configuration.devices.last)
        return { [tell] in
            tell("open")
            return OpenedDevice(MachineOutline.Device(id: "_disk9", spec: added, index: 0), .none)
        }
    }
    func plug(_ opened: OpenedDevice) -> PluggedDevice {
        tell("plug \(opened.id)")
        return PluggedDevice(id: opened.id, address: PCIAddress(device: 5))
    }
    func requestRemoval(of id: String) throws(RequestFailure) {
        guard id == "_disk0" else { throw RequestFailure(.unknownDevice, ["no '\(id)'"]) }
        tell("remove")
    }
    func removeEjected(_ address: PCIAddress) -> PluggedDevice? { nil }
    func removeRequested() -> [PluggedDevice] { [] }

    func resizeDisk(
        _ id: String, to byteCount: UInt64, done: @escaping @Sendable (String?) -> Void
    ) throws(RequestFailure) {
        guard id == "_disk0" else { throw RequestFailure(.unknownDevice, ["no '\(id)'"]) }
        done(byteCount == 512 ? nil : "no such size")
    }
}

/// A monitor without KVM, on a thread of its own, and the API in front of it.
private final class Rig: Sendable {
    private let api: CloudHypervisorAPI
    private let thread: HostThread
    private let box = Box()
    let events = EventMonitor(nil, clock: SystemClock())

    init() throws {
        let ready = DispatchSemaphore(value: 0)
        let control = Box.Control()
        thread = try HostThread(name: "control", role: .tool) { [box, events] in
            do {
                let signals = try ProcessSignals([])
                let monitor = try Monitor(signals: signals, events: events) { _ in
                    FakeMachine { box.add($0) }
                }
                control.value.withLock { $0 = monitor.control }
                ready.signal()
                let end = monitor.run(nil)
                box.end("\(end)")
            } catch {
                ready.signal()
            }
        }
        ready.wait()
        api = CloudHypervisorAPI(
            try #require(control.value.withLock { $0 }), events, version: "0")
    }

    var done: [String] { box.all }

    func ask(_ method: String, _ name: String, _ body: String = "") -> (Int, String) {
        let answer = Box.Answer()
        let arrived = DispatchSemaphore(value: 0)
        let request = HTTPRequest(
            method: method, path: name.hasPrefix("/") ? name : "/api/v1/" + name,
            body: Array(body.utf8))
        api.handle(
            HTTPCall(request, descriptors: []) { given in
                if case .whole(let response) = given { answer.value.withLock { $0 = response } }
                arrived.signal()
            })
        arrived.wait()
        let response = answer.value.withLock { $0 }
        return (
            response?.status.rawValue ?? 0, String(decoding: response?.body ?? [], as: UTF8.self)
        )
    }

    /// The lines of what happens from now on, or the status of a refusal.
    func follow() -> Box.Lines {
        let lines = Box.Lines()
        api.handle(
            HTTPCall(HTTPRequest(method: "GET", path: "/api/v1/vm.events"), descriptors: []) {
                switch $0 {
                case .lines(let given): lines.value.withLock { $0 = given }
                case .whole(let response): lines.status.withLock { $0 = response.status }
                }
            })
        return lines
    }

    func end() -> String? {
        _ = ask("PUT", "vmm.shutdown")
        return waitForEnd()
    }

    func waitForEnd() -> String? {
        thread.join()
        return box.ending
    }
}

private final class Box: Sendable {
    final class Control: Sendable {
        let value = Mutex<MachineControl?>(nil)
    }

    final class Lines: Sendable {
        let value = Mutex<HTTPLines?>(nil)
        let status = Mutex<HTTPStatus?>(nil)

        /// What came since the last time.
        func take() throws -> [JSONValue] {
            let bytes = value.withLock { $0?.take() } ?? []
            return try bytes.split(separator: 0x0a).filter { $0.first == UInt8(ascii: "{") }
                .map { try JSONParser.parse(Array($0)) }
        }
    }

    final class Answer: Sendable {
        let value = Mutex<HTTPResponse?>(nil)
    }

    private let lines = Mutex<[String]>([])
    private let last = Mutex<String?>(nil)

    var all: [String] { lines.withLock { $0 } }
    var ending: String? { last.withLock { $0 } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }
    func end(_ text: String) { last.withLock { $0 = text } }
}

@Suite("Cloud Hypervisor's API")
struct CloudHypervisorAPITests {
    private static let machine =
        #"{"payload":{"kernel":"/k"},"net":[{"tap":"t"}],"disks":[{"path":"/d","id":"_disk0"}]}"#
    private static let bodies: [MachineVerb: String] = [
        .create: machine, .resizeDisk: #"{"id":"_disk0","desired_size":512}"#,
        .coreDump: #"{"destination_url":"file:///core"}"#,
        .addDisk: #"{"path":"/e"}"#, .addNet: #"{"tap":"u"}"#,
        .addVsock: #"{"cid":3,"socket":"/s"}"#, .removeDevice: #"{"id":"_disk0"}"#,
    ]

    /// What brings a machine into a state.
    private static let way: [MachineState: [String]] = [
        .absent: [], .created: ["vm.create"], .running: ["vm.create", "vm.boot"],
        .paused: ["vm.create", "vm.boot", "vm.pause"],
    ]

    private static func rig(_ state: MachineState) throws -> Rig {
        let rig = try Rig()
        for name in way[state] ?? [] {
            #expect(rig.ask("PUT", name, name == "vm.create" ? machine : "").0 == 204)
        }
        return rig
    }

    /// The statuses in each state, in the order of `docs/API.md`; what is done is 200 or 204.
    private static let statuses: [MachineVerb: [Int]] = [
        .create: [204, 500, 500, 500], .delete: [204, 204, 204, 204],
        .boot: [404, 204, 500, 500], .shutdown: [500, 500, 204, 204],
        .reboot: [404, 404, 204, 204], .pause: [500, 500, 204, 500],
        .resume: [500, 500, 500, 204], .powerButton: [500, 500, 204, 204],
        .nmi: [500, 500, 204, 204], .counters: [500, 500, 200, 200],
        .resizeDisk: [404, 500, 204, 204], .coreDump: [500, 500, 204, 204],
        .addDisk: [404, 204, 200, 200],
        .addNet: [404, 204, 200, 200], .addVsock: [404, 204, 200, 200],
        .removeDevice: [404, 204, 204, 204], .endMonitor: [200, 200, 200, 200],
    ]

    @Test("every request in every state", arguments: MachineVerb.allCases)
    func table(verb: MachineVerb) throws {
        for (state, expected) in zip(MachineState.allCases, Self.statuses[verb] ?? []) {
            let rig = try Self.rig(state)
            let body = Self.bodies[verb] ?? ""
            let (status, text) = rig.ask(verb == .counters ? "GET" : "PUT", verb.rawValue, body)
            #expect(status == expected, "\(state)")
            let isRefusal = text.hasPrefix("[\"Cannot ")
            #expect(isRefusal == (expected >= 400), "\(text)")
            let end = verb == .endMonitor ? rig.waitForEnd() : rig.end()
            #expect(end == "poweredOff")
        }
    }

    @Test("docs/API.md shows the same table")
    func documentation() throws {
        let path = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../docs/API.md")
        let text = try String(contentsOf: path, encoding: .utf8)
        for (verb, row) in Self.statuses {
            let cells = row.map(String.init).joined(separator: " | ")
            #expect(text.contains("| `\(verb.rawValue)` | \(cells) |"), "\(verb.rawValue)")
        }
    }

    @Test("a machine's whole life")
    func life() throws {
        let rig = try Self.rig(.paused)
        for name in ["vm.resume", "vm.power-button", "vm.nmi", "vm.reboot", "vm.shutdown"] {
            #expect(rig.ask("PUT", name).0 == 204)
        }
        let created = rig.ask("GET", "vm.info").1
        #expect(created.contains(#""state":"Created""#) && !created.contains("device_tree"))
        #expect(rig.ask("PUT", "vm.boot").0 == 204)
        #expect(rig.ask("PUT", "vm.delete").0 == 204)
        #expect(rig.ask("GET", "vm.info").0 == 404)
        #expect(rig.end() == "poweredOff")
        #expect(
            rig.done == [
                "open", "begin 1", "pause", "resume", "power button", "nmi", "end", "begin 2",
                "end", "finish", "open", "begin 1", "end", "finish",
            ])
    }

    @Test("a paused machine can be rebooted, shut down and ended", arguments: 0..<3)
    func pausedEnds(way: Int) throws {
        let rig = try Self.rig(.paused)
        let names = ["vm.reboot", "vm.shutdown", "vm.delete"]
        #expect(rig.ask("PUT", names[way]).0 == 204)
        let states = [#""state":"Running""#, #""state":"Created""#, "not created"]
        #expect(rig.ask("GET", "vm.info").1.contains(states[way]))
        #expect(rig.end() == "poweredOff")
    }

    @Test("what is told of the machine")
    func info() throws {
        let rig = try Self.rig(.running)
        let (status, text) = rig.ask("GET", "vm.info")
        let json = try JSONParser.parse(Array(text.utf8))
        #expect(status == 200)
        #expect(json["state"] == .string("Running"))
        #expect(json["memory_actual_size"] == .number("536870912"))
        #expect(json["config"]?["payload"]?["kernel"] == .string("/k"))
        #expect(json["device_tree"]?["__ioapic"]?["pci_bdf"] == .null)
        let ping = try JSONParser.parse(Array(rig.ask("GET", "vmm.ping").1.utf8))
        #expect(ping["pid"] == .number("\(getpid())"))
        #expect(rig.ask("GET", "vm.counters").1 == #"{"_disk0":{"read_ops":7}}"#)
        _ = rig.end()
    }

    @Test(
        "requests that are none",
        arguments: [
            ("GET", "/", "", 404), ("GET", "/api/v1/", "", 404), ("GET", "vm.nothing", "", 404),
            ("GET", "/api/v2/vmm.ping", "", 404), ("PUT", "vmm.ping", "", 400),
            ("GET", "vm.boot", "", 400), ("POST", "vm.boot", "", 400),
            ("PUT", "vm.boot", "{}", 400), ("PUT", "vm.create", "", 400),
            ("PUT", "vm.create", "{", 400), ("PUT", "vm.create", "[]", 400),
            ("PUT", "vm.create", #"{"payload":{"kernel":1}}"#, 400),
            ("PUT", "vm.coredump", "{}", 400),
            ("PUT", "vm.coredump", #"{"destination_url":"/core"}"#, 400),
            ("PUT", "vm.coredump", #"{"destination_url":"file://"}"#, 400),
            ("PUT", "vm.resize-disk", "{}", 400), ("PUT", "vm.add-disk", "{}", 400),
        ])
    func refusals(method: String, name: String, body: String, status: Int) throws {
        let rig = try Self.rig(.running)
        let answer = rig.ask(method, name, body)
        #expect(answer.0 == status)
        let json = try JSONParser.parse(Array(answer.1.utf8))
        guard case .array(let chain) = json else { return #expect(Bool(false), "\(answer.1)") }
        #expect(!chain.isEmpty)
        #expect(rig.end() == "poweredOff")
    }

    @Test("who follows the events hears what happens, and what goes wrong")
    func events() throws {
        let rig = try Self.rig(.created)
        let lines = rig.follow()
        #expect(rig.ask("PUT", "vm.boot").0 == 204)
        #expect(rig.ask("PUT", "vm.boot").0 == 500)
        let wrong = #"{"id":"x","desired_size":512}"#
        #expect(rig.ask("PUT", "vm.resize-disk", wrong).0 == 404)
        #expect(rig.end() == "poweredOff")
        let events = try lines.take()
        #expect(
            events.map { $0["event"] } == ["booting", "booted", "error", "shutdown", "deleted"])
        #expect(
            events[2]["properties"]
                == ["request": "vm.resize-disk", "reason": "Cannot resize the disk: no 'x'"])
    }

    @Test("a place among those who follow is free again when one leaves")
    func followers() throws {
        let rig = try Self.rig(.absent)
        var all: [Box.Lines] = []
        while all.last?.status.withLock({ $0 }) == nil, all.count < 100 { all.append(rig.follow()) }
        #expect(all.count == 17)
        #expect(all.last?.status.withLock { $0 } == .serviceUnavailable)
        all[3].value.withLock { $0?.leave() }
        #expect(rig.follow().status.withLock { $0 } == nil)
        #expect(rig.end() == "poweredOff")
    }

    @Test("a disk that is unknown, or refuses its new size")
    func resizing() throws {
        let rig = try Self.rig(.running)
        let unknown = rig.ask("PUT", "vm.resize-disk", #"{"id":"x","desired_size":512}"#)
        #expect(unknown == (404, #"["Cannot resize the disk","no 'x'"]"#))
        let wrong = rig.ask("PUT", "vm.resize-disk", #"{"id":"_disk0","desired_size":1}"#)
        #expect(wrong == (500, #"["Cannot resize the disk","no such size"]"#))
        _ = rig.end()
    }

    @Test("a machine that runs stands still while its core is dumped")
    func coreDumps() throws {
        let rig = try Self.rig(.running)
        #expect(rig.ask("PUT", "vm.coredump", #"{"destination_url":"file:///a"}"#).0 == 204)
        #expect(rig.ask("GET", "vm.info").1.contains(#""state":"Running""#))
        let full = rig.ask("PUT", "vm.coredump", #"{"destination_url":"file:///full"}"#)
        #expect(full.0 == 500)
        #expect(full.1.contains("No space left"), "\(full.1)")
        #expect(rig.ask("PUT", "vm.pause").0 == 204)
        #expect(rig.ask("PUT", "vm.coredump", #"{"destination_url":"file:///b"}"#).0 == 204)
        #expect(rig.ask("GET", "vm.info").1.contains(#""state":"Paused""#))
        #expect(rig.end() == "poweredOff")
        #expect(
            rig.done == [
                "open", "begin 1", "pause", "dump /a", "dumped", "resume", "pause", "resume",
                "pause", "dump /b", "dumped", "end", "finish",
            ])
    }

    @Test("while a core is dumped questions are answered, requests wait, and an end ends it")
    func slowCoreDump() throws {
        let rig = try Self.rig(.running)
        let lines = rig.follow()
        let answers = Mutex<[String: Int]>([:])
        func send(_ name: String, _ body: String = "") throws -> HostThread {
            try HostThread(name: name, role: .tool) {
                let status = rig.ask("PUT", name, body).0
                answers.withLock { $0[name] = status }
            }
        }
        let dump = try send("vm.coredump", #"{"destination_url":"file:///slow"}"#)
        while !rig.done.contains("dump /slow") { usleep(1000) }
        #expect(rig.ask("GET", "vm.info").1.contains(#""state":"Paused""#))
        #expect(rig.ask("GET", "vmm.ping").0 == 200)
        let waiter = try send("vm.power-button")
        // It may not have been sent yet, or waits: either way nothing has become of it.
        #expect(!rig.done.contains("power button"))
        #expect(rig.ask("PUT", "vm.shutdown").0 == 204)
        dump.join()
        waiter.join()
        #expect(answers.withLock { $0["vm.coredump"] } == 204)
        #expect(rig.done.contains("dumped") && rig.done.contains("finish"))
        #expect(try lines.take().contains { $0["event"] == "coredumping" })
        #expect(rig.end() == "poweredOff")
    }

    @Test("a hundred requests at once are all answered")
    func parallel() throws {
        let rig = try Self.rig(.running)
        let answered = Atomic<Int>(0)
        DispatchQueue.concurrentPerform(iterations: 100) { index in
            let name = index % 2 == 0 ? "vm.pause" : "vm.resume"
            if rig.ask("PUT", name).0 != 0 { answered.add(1, ordering: .relaxed) }
        }
        #expect(answered.load(ordering: .relaxed) == 100)
        #expect(rig.end() == "poweredOff")
    }
}
