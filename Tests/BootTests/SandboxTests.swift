import Foundation
import Testing

/// The monitor's own confinement. That no thread makes a call which it has no business with, all
/// boot tests show: such a call ends the monitor.
@Suite("Sandbox", .guest)
struct SandboxTests {
    private let scratch: Scratch

    init() throws { scratch = try Scratch() }

    private func start(_ options: String...) throws -> Guest {
        var boot = Boot("echo ready; read line")
        boot.options = options
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready\n")
        return guest
    }

    private func stop(_ guest: Guest) throws {
        guest.type("end\n")
        try guest.finish()
    }

    /// A field of each thread's status.
    private func values(_ field: String, of guest: Guest) throws -> [String] {
        let tasks = "/proc/\(guest.process.identifier)/task"
        return try FileManager.default.contentsOfDirectory(atPath: tasks).compactMap { task in
            let text = try String(contentsOfFile: "\(tasks)/\(task)/status", encoding: .utf8)
            let line = text.split(separator: "\n").first { $0.hasPrefix(field + ":") }
            return line?.split(whereSeparator: \.isWhitespace).last.map(String.init)
        }
    }

    @Test("each thread is filtered, has no capabilities and gains none")
    func threads() throws {
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        let guest = try start(
            "--disk", "path=\(disk),image_type=raw,num_queues=2", "--net", "tap=swl-sandbox")
        let fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        for field in fields {
            #expect(try Set(values(field, of: guest)) == ["0000000000000000"], "\(field)")
        }
        #expect(try Set(values("NoNewPrivs", of: guest)) == ["1"])
        #expect(try Set(values("Seccomp", of: guest)) == ["2"])
        #expect(try values("Seccomp", of: guest).count >= 4)
        let limits = try String(
            contentsOfFile: "/proc/\(guest.process.identifier)/limits", encoding: .utf8)
        #expect(limits.contains(/Max core file size +0 +0/))
        // The descriptors that an exec would take along.
        let folder = "/proc/\(guest.process.identifier)/fdinfo"
        for number in try FileManager.default.contentsOfDirectory(atPath: folder)
        where Int(number) ?? 0 > 2 {
            let text = try String(contentsOfFile: "\(folder)/\(number)", encoding: .utf8)
            let flags = text.firstMatch(of: /flags:\s+([0-7]+)/).flatMap { Int($0.1, radix: 8) }
            #expect((flags ?? 0) & 0o2000000 != 0, "descriptor \(number)")
        }
        try stop(guest)
    }

    @Test("a disk that nobody listed is refused with a sentence, and a listed one comes")
    func files() throws {
        let listed = try scratch.sparseFile("listed", bytes: 1 << 20)
        let other = try scratch.sparseFile("other", bytes: 1 << 20)
        let guest = try start(
            "--api-socket", scratch("api"), "--landlock-rules", "path=\(listed),access=rw")
        let api = API(socket: scratch("api"))
        let refused = try api.ask("PUT", "vm.add-disk", "{\"path\": \"\(other)\"}")
        #expect(refused.status == 400)
        #expect(refused.body.contains("landlock_rules"))
        #expect(refused.body.contains(other))
        #expect(try api.ask("PUT", "vm.add-disk", "{\"path\": \"\(listed)\"}").status == 200)
        let program = try api.ask("PUT", "vm.add-net", #"{"backend": "user"}"#)
        #expect(program.status == 400)
        #expect(program.body.contains("backend=socket"))
        try stop(guest)
    }

    /// A machine of the API's, which boots what it is given.
    private func machine(_ changes: [String: Any]) throws -> [String: Any] {
        let kernel = try scratch.file("kernel", LifecycleTests.kernel([0xf4, 0xeb, 0xfd]))
        return [
            "payload": ["kernel": kernel], "memory": ["size": 64 << 20],
            "serial": ["mode": "Null"], "console": ["mode": "Null"],
        ].merging(changes) { $1 }
    }

    @Test("a rule for what is not there is refused with a sentence")
    func missingRule() throws {
        let kernel = try scratch.file("kernel", LifecycleTests.kernel([0xf4, 0xeb, 0xfd]))
        let rule = "path=\(scratch("nothing")),access=r"
        let guest = try Guest(
            [try Bed.monitor, "--kernel", kernel, "--landlock-rules", rule], in: scratch)
        #expect(try guest.waitForExit() == 1)
        let told = guest.errors.text
        #expect(told.contains("there is no such file or folder"), "\(told)")
        #expect(told.contains(scratch("nothing")))
    }

    @Test("a boot that fails, and one that succeeds behind it, leave no thread unconfined")
    func secondBoot() throws {
        let guest = try Guest(
            [try Bed.monitor, "--api-socket", "path=\(scratch("api"))"], in: scratch)
        let api = try API.wait(for: guest, scratch("api"))
        // Not a folder: a rule that cannot be made.
        let rules = [["path": "/etc/passwd/x", "access": "r"]]
        #expect(try api.put("vm.create", machine(["landlock_rules": rules])).status == 204)
        let refused = try api.ask("PUT", "vm.boot")
        #expect(refused.status == 500 && refused.body.contains("/etc/passwd/x"), "\(refused)")
        #expect(try api.put("vm.delete") == 204)
        #expect(try api.put("vm.create", machine([:])).status == 204)
        #expect(try api.put("vm.boot") == 204)

        #expect(try Set(values("Seccomp", of: guest)) == ["2"])
        // The main thread alone keeps CAP_NET_ADMIN, for taps that come later.
        let rights = try values("CapEff", of: guest)
        #expect(Set(rights) == ["0000000000000000", "0000000000001000"])
        #expect(rights.count { $0 == "0000000000001000" } == 1)
        #expect(try api.put("vmm.shutdown") == 200)
        #expect(try guest.waitForExit() == 0)
    }

    @Test(
        "a client confines more than the command line does, not less",
        arguments: [("on", false, "true"), ("off", true, "true"), ("off", true, "false")])
    func clientsWish(option: String, wish: Bool, filters: String) throws {
        let guest = try Guest(
            [
                try Bed.monitor, "--landlock", option, "--seccomp", filters, "--api-socket",
                "path=\(scratch("api"))",
            ], in: scratch)
        let api = try API.wait(for: guest, scratch("api"))
        #expect(try api.put("vm.create", machine(["landlock_enable": wish])).status == 204)
        let refused = try api.ask("PUT", "vm.boot")
        #expect(refused.body.contains("--landlock \(option)"), "\(refused)")
        #expect(try api.put("vmm.shutdown") == 200)
        #expect(try guest.waitForExit() == 0)
    }

    @Test("what the first guest's boot has decided about files is not otherwise for a later one")
    func laterWishes() throws {
        let monitor = [try Bed.monitor, "--api-socket", "path=\(scratch("api"))"]
        let guest = try Guest(monitor, in: scratch)
        let api = try API.wait(for: guest, scratch("api"))
        func boot(_ changes: [String: Any]) throws -> (status: Int, body: String) {
            #expect(try api.put("vm.create", machine(changes)).status == 204)
            let answer = try api.ask("PUT", "vm.boot")
            #expect(try api.put("vm.delete") == 204)
            return (answer.status, answer.body)
        }
        let listed = ["path": scratch.path, "access": "rw"]
        #expect(try boot(["landlock_rules": [listed]]).status == 204)
        #expect(try boot(["landlock_rules": [listed]]).status == 204)
        let other = try boot(["landlock_rules": [["path": "/etc", "access": "r"]]])
        #expect(other.status >= 400 && other.body.contains("/etc"), "\(other)")
        #expect(try api.put("vmm.shutdown") == 200)
        #expect(try guest.waitForExit() == 0)

        let free = try Guest(monitor, in: scratch)
        let next = try API.wait(for: free, scratch("api"))
        #expect(try next.put("vm.create", machine(["landlock_enable": false])).status == 204)
        #expect(try next.put("vm.boot") == 204)
        #expect(try next.put("vm.delete") == 204)
        for wish in [["landlock_enable": true], [:]] {
            #expect(try next.put("vm.create", machine(wish)).status == 204)
            let late = try next.ask("PUT", "vm.boot")
            #expect(late.body.contains("without landlock"), "\(late)")
            #expect(try next.put("vm.delete") == 204)
        }
        #expect(try next.put("vmm.shutdown") == 200)
        #expect(try free.waitForExit() == 0)
    }

    @Test("what an image consists of is within reach again at a second boot")
    func partsOfImages() throws {
        let names = ["base", "top", "flat.vmdk"].map { scratch($0) }
        try HostCommand.run("qemu-img", "create", "-q", "-f", "qcow2", names[0], "4M")
        try HostCommand.run(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", names[0], "-F", "qcow2", names[1])
        try HostCommand.run(
            "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", names[2],
            "4M")
        let disks: [[String: Any]] = [
            ["path": names[1], "image_type": "Qcow2", "backing_files": true],
            ["path": names[2], "image_type": "FlatVmdk"],
        ]
        let guest = try Guest(
            [try Bed.monitor, "--landlock", "on", "--api-socket", "path=\(scratch("api"))"],
            in: scratch)
        let api = try API.wait(for: guest, scratch("api"))
        #expect(try api.put("vm.create", machine(["disks": disks])).status == 204)
        for _ in 0..<2 {
            let answer = try api.ask("PUT", "vm.boot")
            #expect(answer.status == 204, "\(answer)")
            #expect(try api.put("vm.shutdown") == 204)
        }
        #expect(try api.put("vmm.shutdown") == 200)
        #expect(try guest.waitForExit() == 0)
    }

    @Test("without filters and landlock there are none", arguments: ["false", "log", "errno"])
    func switches(mode: String) throws {
        let guest = try start("--seccomp", mode, "--landlock", "off")
        #expect(try Set(values("Seccomp", of: guest)) == [mode == "false" ? "0" : "2"])
        // Without either, the monitor has the rights that it was started with.
        let ownRights = try Set(values("CapBnd", of: guest)) != ["0000000000000000"]
        #expect(ownRights == (mode == "false"))
        try stop(guest)
    }
}
