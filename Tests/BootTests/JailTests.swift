import Foundation
import Testing

/// Monitors in a root and in namespaces of their own.
@Suite("Jail")
struct JailTests {
    private let scratch: Scratch
    private let tool: String
    private let monitor: String

    init() throws {
        scratch = try Scratch()
        tool = try scratch.copy(Bed.setting("SWIFTLET_TOOL"))
        monitor = try scratch.copy(Bed.monitor)
    }

    // MARK: what a jailed process is

    /// The number of the process that is the first in its own namespace and runs the monitor.
    private func jailed(_ id: String) throws -> Int? {
        for name in try FileManager.default.contentsOfDirectory(atPath: "/proc") {
            guard let number = Int(name),
                let words = try? String(contentsOfFile: "/proc/\(name)/cmdline", encoding: .utf8),
                words.contains(id), words.hasPrefix("swiftlet-vmm\0")
            else { continue }
            return number
        }
        return nil
    }

    private func field(_ name: String, of process: Int) throws -> [String] {
        let text = try String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)
        let line = text.split(separator: "\n").first { $0.hasPrefix(name + ":") }
        return line?.split(whereSeparator: \.isWhitespace).dropFirst().map(String.init) ?? []
    }

    /// `paths` are all that the process can find by a path.
    private func expectFiles(of process: Int, _ paths: [String]) throws {
        let listing = try HostCommand.run(
            "find", "/proc/\(process)/root/", "-mindepth", "1", "-printf", "%P\\n")
        let found = Set(listing.split(separator: "\n").map(String.init))
        let expected = withFolders(paths)
        #expect(found.subtracting(expected) == [])
        #expect(expected.subtracting(found) == [])
    }

    private func namespace(_ kind: String, of process: String) throws -> String {
        try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/ns/\(kind)")
    }

    /// Each path and the folders that lead to it, without a slash in front.
    private func withFolders(_ paths: [String]) -> Set<String> {
        var all: Set<String> = []
        for path in paths {
            let parts = path.split(separator: "/")
            for count in parts.indices { all.insert(parts[...count].joined(separator: "/")) }
        }
        return all
    }

    private static let devices =
        ["/dev/kvm", "/dev/net/tun", "/dev/urandom", "/dev/userfaultfd"]
        .filter { FileManager.default.fileExists(atPath: $0) }

    // MARK: tests

    @Test("without rights, in one go: the monitor finds its machine's files, and nothing else")
    func rootless() throws {
        chmod(scratch.path, 0o777)
        let base = try scratch.sparseFile("base", bytes: 4 << 20)
        let overlay = scratch("overlay")
        try HostCommand.run(
            "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay)
        chmod(overlay, 0o666)
        try FileManager.default.createDirectory(
            atPath: scratch("sockets"), withIntermediateDirectories: false)
        chmod(scratch("sockets"), 0o777)
        var boot = Boot("say up; read line; dd if=/dev/zero of=/dev/vda bs=64k count=1; sync")
        boot.options = [
            "--disk", "path=\(overlay),image_type=qcow2,backing_files=on",
            "--api-socket", scratch("sockets/api"),
        ]
        var words = try boot.arguments(scratch)
        let kernel = try scratch.file("kernel", Data(contentsOf: URL(filePath: words[2])))
        words[2] = kernel
        let initramfs = words[4]
        let run = [tool, "run", "--jail", "--exec-file", monitor] + words.dropFirst()
        // With a file of the host open, as a careless parent has it.
        let careless = ["sh", "-c", "exec 9</etc/hostname; exec \"$@\"", "sh"]
        let guest = try Guest(RootlessNetworkTests.asNobody + careless + run, in: scratch)
        try guest.wait(for: "= up")

        let process = try #require(try jailed(overlay))
        let descriptors = "/proc/\(process)/fd"
        for number in try FileManager.default.contentsOfDirectory(atPath: descriptors) {
            let target = try? FileManager.default.destinationOfSymbolicLink(
                atPath: "\(descriptors)/\(number)")
            #expect(target != "/etc/hostname")
        }
        try expectFiles(
            of: process,
            [
                "/dev/kvm", "/dev/urandom", "/dev/net", "/swiftlet-vmm", "/run", kernel,
                initramfs, base, overlay,
                scratch("sockets/api"), scratch("sockets/api.lock"),
                FileManager.default.currentDirectoryPath,
            ])
        #expect(try field("NSpid", of: process).last == "1")
        #expect(try field("Uid", of: process).first == "65534")
        #expect(try Set(field("CapEff", of: process)) == ["0000000000000000"])
        #expect(try field("NoNewPrivs", of: process) == ["1"])
        #expect(try field("Seccomp", of: process) == ["2"])
        for kind in ["mnt", "pid", "net", "user", "ipc", "uts"] {
            let own = try namespace(kind, of: "self")
            #expect(try namespace(kind, of: "\(process)") != own, "\(kind)")
        }
        // The socket is where the user said, and answers.
        let ping = try API(socket: scratch("sockets/api")).ask("GET", "vmm.ping", "")
        #expect(ping.status == 200)

        guest.type("go on\n")
        try guest.finish()
        try HostCommand.run("qemu-img", "check", "-q", overlay)
        #expect(!scratch.exists("sockets/api"))
    }

    @Test("a signal to the command ends the machine, and its status is the command's")
    func ends() throws {
        let guest = try Guest(
            [tool, "run", "--jail", "--exec-file", monitor]
                + Boot("say up; sleep 1000")
                .arguments(scratch).dropFirst(), in: scratch)
        try guest.wait(for: "= up")
        let process = try #require(try jailed(scratch.path))
        for kind in ["mnt", "pid", "net", "ipc", "uts"] {
            let own = try namespace(kind, of: "self")
            #expect(try namespace(kind, of: "\(process)") != own, "\(kind)")
        }
        guest.process.send(SIGTERM)
        #expect(try guest.waitForExit() == 0)
        try waitUntil("the monitor's end") {
            !FileManager.default.fileExists(atPath: "/proc/\(process)")
        }
        // What its parent's programs inherit is not the monitor's.
        let killed = try Guest(
            ["setpriv", "--inh-caps", "+net_raw,+sys_admin", tool, "run", "--jail", "--exec-file"]
                + [monitor, "--api-socket", scratch("api")], in: scratch)
        try waitUntil("the monitor") { scratch.exists("api") }
        let idle = try #require(try jailed(scratch("api")))
        // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_SETPCAP: files, and fewer rights.
        #expect(try field("CapEff", of: idle) == ["0000000000000106"])
        #expect(try field("CapBnd", of: idle) == ["0000000000000106"])
        killed.process.send(SIGKILL)
        try waitUntil("the end of a monitor whose command was killed") {
            !FileManager.default.fileExists(atPath: "/proc/\(idle)")
        }
        let refused = try HostCommand(
            [tool, "run", "--jail", "--exec-file", monitor, "--kernel", scratch("nothing")])
        #expect(refused.status == 1)
        #expect(refused.errors.contains("--kernel '\(scratch("nothing"))'"))
        let passt = try HostCommand(
            [
                tool, "run", "--jail", "--exec-file", monitor, "--kernel", monitor, "--net",
                "backend=user",
            ])
        #expect(passt.status == 1)
        #expect(passt.errors.contains("backend=socket"))
    }

    @Test("as jailer, with Firecracker's options: root, user, groups, limits, a process alone")
    func jailer() throws {
        let name = "boot-\(UInt32.random(in: 0...UInt32.max))"
        let jailer = scratch("jailer")
        try FileManager.default.createSymbolicLink(atPath: jailer, withDestinationPath: tool)
        let root = scratch("jails/swiftlet-vmm/\(name)/root")
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        let boot = try Boot("say up; sleep 1000").arguments(scratch)
        for (index, file) in [(2, "kernel"), (4, "initramfs")] {
            try HostCommand.run("cp", boot[index], "\(root)/\(file)")
            chmod("\(root)/\(file)", 0o644)
        }
        let words = [
            jailer, "--id", name, "--exec-file", monitor, "--uid", "1234", "--gid", "4321",
            "--chroot-base-dir", scratch("jails"), "--cgroup-version", "2", "--cgroup",
            "pids.max=64",
            "--resource-limit", "fsize=1000000", "--daemonize", "--new-pid-ns", "--",
            "--kernel", "/kernel", "--initramfs", "/initramfs", "--memory", "size=256M",
            "--cmdline", boot[6], "--serial", "file=/serial", "--console", "off",
        ]
        let start = try HostCommand(words)
        #expect(start.status == 0, "\(start.errors)")
        func output() -> String {
            (try? String(contentsOfFile: root + "/serial", encoding: .utf8)) ?? ""
        }
        try waitUntil("the guest") { output().contains("= up") }

        let note = try String(contentsOfFile: root + "/swiftlet-vmm.pid", encoding: .utf8)
        let process = try #require(Int(note))
        defer { kill(pid_t(process), SIGKILL) }
        try expectFiles(
            of: process,
            Self.devices + [
                "/swiftlet-vmm", "/swiftlet-vmm.pid", "/run", "/kernel", "/initramfs", "/serial",
            ])
        #expect(try Set(field("Uid", of: process)) == ["1234"])
        #expect(try Set(field("Gid", of: process)) == ["4321"])
        #expect(try field("Groups", of: process) == [])
        #expect(try field("NSpid", of: process) == [note, "1"])
        #expect(try field("NoNewPrivs", of: process) == ["1"])
        // The kernel gives what is in /proc of one that must not be dumped to root.
        let attributes = try FileManager.default.attributesOfItem(
            atPath: "/proc/\(process)/environ")
        #expect(attributes[.ownerAccountID] as? Int == 0)
        let limits = try String(contentsOfFile: "/proc/\(process)/limits", encoding: .utf8)
        #expect(limits.contains(/Max open files +2048 +2048/))
        #expect(limits.contains(/Max file size +1000000 +1000000/))
        let group = try String(contentsOfFile: "/proc/\(process)/cgroup", encoding: .utf8)
        #expect(group.split(separator: "\n").contains("0::/swiftlet-vmm/\(name)"))
        let bound = "/sys/fs/cgroup/swiftlet-vmm/\(name)/pids.max"
        #expect(try String(contentsOfFile: bound, encoding: .utf8) == "64\n")
        let mounts = try String(contentsOfFile: "/proc/\(process)/mountinfo", encoding: .utf8)
        #expect(mounts.split(separator: "\n").count == 1, "\(mounts)")
        let environment = try Data(contentsOf: URL(filePath: "/proc/\(process)/environ"))
        #expect(environment.isEmpty)
        #expect(
            try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/fd/0")
                == "/dev/null")

        let again = try HostCommand(words)
        #expect(again.errors.contains("--id '\(name)'"), "\(again.errors)")
        kill(pid_t(process), SIGTERM)
        try waitUntil("the monitor's end") {
            !FileManager.default.fileExists(atPath: "/proc/\(process)")
        }
    }

    @Test("what is exposed, and what was mounted into the root before, is there")
    func furnished() throws {
        // Powers off: mov $0x600, %dx; mov $0x34, %al; out %al, (%dx); hlt; jmp to it.
        let code: [UInt8] = [0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xf4, 0xeb, 0xfd]
        let kernel = try scratch.file("kernel", LifecycleTests.kernel(code))
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        for path in [kernel, disk] { chmod(path, 0o644) }
        let root = scratch("jails/swiftlet-vmm/shown/root")
        try FileManager.default.createDirectory(
            atPath: root + "/kernels", withIntermediateDirectories: true)
        try FileManager.default.createDirectory(
            atPath: scratch("mounted"), withIntermediateDirectories: false)
        try FileManager.default.moveItem(atPath: kernel, toPath: scratch("mounted/kernel"))
        try HostCommand.run("mount", "--bind", scratch("mounted"), root + "/kernels")
        defer { _ = try? HostCommand(["umount", root + "/kernels"]) }
        let network = "swl-\(UInt32.random(in: 0...UInt32.max))"
        try HostCommand.run("ip", "netns", "add", network)
        defer { _ = try? HostCommand(["ip", "netns", "delete", network]) }
        func run(_ options: [String]) throws -> HostCommand {
            // A second start finds the first one's note.
            try? FileManager.default.removeItem(atPath: root + "/swiftlet-vmm.pid")
            return try HostCommand(
                [
                    tool, "jail", "--id", "shown", "--exec-file", monitor, "--chroot-base-dir",
                    scratch("jails"), "--uid", "1234", "--gid", "1234", "--expose", disk,
                ] + options + [
                    "--", "--kernel", "/kernels/kernel", "--memory", "size=64M", "--serial", "null",
                    "--console", "off", "--disk", "path=\(disk),image_type=raw,readonly=on",
                ])
        }
        for options in [[], ["--new-net-ns"], ["--netns", "/run/netns/\(network)"]] {
            let result = try run(options)
            #expect(result.status == 0, "\(options): \(result.errors)")
        }
    }

    @Test("firecracker as the program is told its id, and when its jail was begun")
    func firecracker() throws {
        let root = scratch("jails/firecracker-words/told/root")
        try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
        try HostCommand.run("cp", "/bin/busybox", root + "/busybox")
        let script = try scratch.file("firecracker-words", "#!/busybox sh\nprintf '%s,' \"$@\"\n")
        chmod(script, 0o755)
        func microseconds() -> UInt64 {
            var now = timespec()
            clock_gettime(CLOCK_MONOTONIC, &now)
            return UInt64(now.tv_sec) * 1_000_000 + UInt64(now.tv_nsec) / 1000
        }

        let before = microseconds()
        let result = try HostCommand([
            tool, "jail", "--id", "told", "--exec-file", script, "--chroot-base-dir",
            scratch("jails"), "--uid", "1234", "--gid", "1234", "--", "--api-sock", "a socket",
        ])
        let after = microseconds()

        #expect(result.status == 0, "\(result.errors)")
        let words = result.output.split(separator: ",").map(String.init)
        try #require(words.count == 10, "\(result.output)")
        let names = [0, 1, 2, 4, 6, 8, 9].map { words[$0] }
        #expect(
            names == [
                "--id", "told", "--start-time-us", "--start-time-cpu-us", "--parent-cpu-time-us",
                "--api-sock", "a socket",
            ])
        #expect((before...after).contains(try #require(UInt64(words[3]))))
        // A jail takes milliseconds of a CPU, and no more of it than passed.
        for used in [words[5], words[7]] {
            #expect(try #require(UInt64(used)) < after - before)
        }
    }

    /// Starts a monitor whose guest waits for ever, in the background, with these options of
    /// `swiftlet jail`; its lines of /proc/PID/cgroup.
    private func groups(of id: String, _ options: [String]) throws -> Set<String> {
        // hlt; jmp to it, without interrupts.
        let kernel = try scratch.file("\(id)-kernel", LifecycleTests.kernel([0xf4, 0xeb, 0xfd]))
        chmod(kernel, 0o644)
        let command = [
            tool, "jail", "--id", id, "--exec-file", monitor, "--chroot-base-dir",
            scratch("jails"), "--uid", "1234", "--gid", "1234", "--daemonize", "--expose", kernel,
        ]
        let start = try HostCommand(
            command + options + [
                "--", "--kernel", kernel, "--memory", "size=64M", "--serial", "null",
                "--console", "off",
            ])
        #expect(start.status == 0, "\(start.errors)")
        let note = scratch("jails/swiftlet-vmm/\(id)/root/swiftlet-vmm.pid")
        let process = try #require(Int(String(contentsOfFile: note, encoding: .utf8)))
        defer { kill(pid_t(process), SIGKILL) }
        let text = try String(contentsOfFile: "/proc/\(process)/cgroup", encoding: .utf8)
        return Set(text.split(separator: "\n").map(String.init))
    }

    @Test("groups of both versions, below a parent or in it")
    func controlGroups() throws {
        try FileManager.default.createDirectory(
            atPath: scratch("jails"), withIntermediateDirectories: false)
        let name = "swl-\(UInt32.random(in: 0...UInt32.max))"
        let below = try groups(
            of: "below",
            [
                "--cgroup-version", "2", "--parent-cgroup", "\(name)/mid", "--cgroup",
                "pids.max=50",
            ])
        #expect(below == ["0::/\(name)/mid/below"])
        let path = "/sys/fs/cgroup/\(name)/there"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let inside = try groups(
            of: "inside", ["--cgroup-version", "2", "--parent-cgroup", "\(name)/there"])
        #expect(inside == ["0::/\(name)/there"])

        for controller in ["freezer", "cpu"] {
            let mount = scratch(controller)
            try FileManager.default.createDirectory(
                atPath: mount, withIntermediateDirectories: false)
            try HostCommand.run("mount", "-t", "cgroup", "-o", controller, "none", mount)
        }
        defer {
            for controller in ["freezer", "cpu"] {
                _ = try? HostCommand(["umount", scratch(controller)])
            }
        }
        let old = try groups(
            of: "old", ["--cgroup", "freezer.state=THAWED", "--cgroup", "cpu.shares=10"])
        let memberships = old.map { $0.split(separator: ":", maxSplits: 1).last ?? "" }
        #expect(
            Set(memberships).isSuperset(of: [
                "freezer:/swiftlet-vmm/old", "cpu:/swiftlet-vmm/old",
            ]), "\(old)")
        let shares = scratch("cpu/swiftlet-vmm/old/cpu.shares")
        #expect(try String(contentsOfFile: shares, encoding: .utf8) == "10\n")
    }

    @Test("jail --rootless, on request and in memory: a user's own namespaces")
    func rootlessJail() throws {
        try FileManager.default.createDirectory(
            atPath: scratch("jails"), withIntermediateDirectories: false)
        chmod(scratch("jails"), 0o777)
        // Powers off, as above.
        let code: [UInt8] = [0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xf4, 0xeb, 0xfd]
        let kernel = try scratch.file("kernel", LifecycleTests.kernel(code))
        chmod(kernel, 0o644)
        func run(_ prefix: [String], _ options: [String]) throws -> HostCommand {
            try HostCommand(
                prefix + [
                    tool, "jail", "--id", "light", "--exec-file", monitor, "--expose", kernel,
                ] + options + [
                    "--", "--kernel", kernel, "--memory", "size=64M", "--serial", "null",
                    "--console", "off",
                ])
        }
        let nobody = RootlessNetworkTests.asNobody
        for (prefix, options) in [
            ([], ["--rootless"]), (nobody, []), (nobody, ["--chroot-base-dir", scratch("jails")]),
        ] as [([String], [String])] {
            let result = try run(prefix, options)
            #expect(result.status == 0, "\(prefix) \(options): \(result.errors)")
        }
        // What needs rights is refused, not left out.
        let group = try run(nobody, ["--cgroup-version", "2", "--cgroup", "pids.max=9"])
        #expect(group.status == 1 && group.errors.contains("/sys/fs/cgroup"), "\(group.errors)")
    }

    @Test("a jail that cannot be is refused with a sentence")
    func mistakes() throws {
        let linked = scratch("linked")
        try FileManager.default.createDirectory(
            atPath: scratch("jails/swiftlet-vmm/links/root"), withIntermediateDirectories: true)
        let victim = try scratch.file("victim", "kept")
        let copy = scratch("jails/swiftlet-vmm/links/root/swiftlet-vmm")
        try FileManager.default.createSymbolicLink(
            atPath: linked, withDestinationPath: scratch.path)
        func expect(_ mentioned: String, _ words: String..., id: String = "one") throws {
            let common = [
                tool, "jail", "--id", id, "--exec-file", monitor, "--chroot-base-dir",
                scratch("jails"), "--uid", "1234", "--gid", "1234",
            ]
            let result = try HostCommand(common + words)
            #expect(result.status == 1 && result.errors.contains(mentioned), "\(words): \(result)")
            #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        }
        try expect("--id 'a/b'", id: "a/b")
        try expect("--id", id: String(repeating: "a", count: 65))
        try expect("--exec-file '/nothing'", "--exec-file", "/nothing")
        try expect("--exec-file '\(linked)'", "--exec-file", linked)
        try expect("--cgroup 'cpu'", "--cgroup", "cpu")
        try expect("--cgroup '../cpu.max=1'", "--cgroup", "../cpu.max=1")
        try expect("--parent-cgroup '../up'", "--cgroup", "cpu.max=1", "--parent-cgroup", "../up")
        try expect("--cgroup-version", "--cgroup-version", "3")
        try expect("--resource-limit 'no-file'", "--resource-limit", "no-file")
        try expect("--uid", "--uid", "-1")
        try expect("/nothing", "--netns", "/nothing")
        try expect("/etc/hostname", "--netns", "/etc/hostname")
        try expect("--expose 'etc'", "--expose", "etc")
        try expect("pids.nothing", "--cgroup-version", "2", "--cgroup", "pids.nothing=1")

        // What others put where the program's copy goes is neither followed nor overwritten.
        try FileManager.default.createSymbolicLink(atPath: copy, withDestinationPath: victim)
        try expect(copy, id: "links")
        try FileManager.default.removeItem(atPath: copy)
        try FileManager.default.linkItem(atPath: victim, toPath: copy)
        try expect(copy, id: "links")
        #expect(try scratch.text("victim") == "kept")
        try FileManager.default.removeItem(atPath: copy)

        // Nor do folders lead out: who was in the jail before owns them.
        let outside = scratch("outside")
        // The first folder of what is shown.
        let parts = victim.split(separator: "/").map(String.init)
        try FileManager.default.createDirectory(
            atPath: outside, withIntermediateDirectories: false)
        try FileManager.default.createSymbolicLink(
            atPath: scratch("jails/swiftlet-vmm/links/root/dev"), withDestinationPath: outside)
        try expect("/dev", "--expose", "/dev/null", id: "links")
        #expect(try FileManager.default.contentsOfDirectory(atPath: outside) == [])
        try FileManager.default.removeItem(
            atPath: scratch("jails/swiftlet-vmm/links/root/dev"))
        try FileManager.default.createSymbolicLink(
            atPath: scratch("jails/swiftlet-vmm/links/root/run"), withDestinationPath: "images")
        try FileManager.default.createDirectory(
            atPath: scratch("jails/swiftlet-vmm/links/root/images"),
            withIntermediateDirectories: false)
        try expect("/run", id: "links")
        try FileManager.default.removeItem(
            atPath: scratch("jails/swiftlet-vmm/links/root/run"))
        // The root's own ".." was the host once, for as long as its files were shown.
        try FileManager.default.createSymbolicLink(
            atPath: scratch("jails/swiftlet-vmm/links/root/\(parts[0])"),
            withDestinationPath: "../\(outside)")
        try expect("/\(parts[0])", "--expose", victim, id: "links")
        #expect(try FileManager.default.contentsOfDirectory(atPath: outside) == [])
    }
}
