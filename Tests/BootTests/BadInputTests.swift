import Foundation
import Testing

/// What the user got wrong is told in one line for each mistake, and nothing is left behind.
@Suite("Bad input", .guest)
struct BadInputTests {
    /// A mistake on the command line: the options, and the words that the message must have.
    struct Mistake: Sendable, CustomTestStringConvertible {
        let options: [String]
        let words: [[String]]

        /// One message for each of `words`.
        init(_ options: [String], _ words: [String]...) {
            self.options = options
            self.words = words
        }

        var testDescription: String { options.joined(separator: " ") }
    }

    private static let badCPUs = [
        Mistake(["--cpus", "boot=0"], ["--cpus boot", "'0'", "at least 1"]),
        Mistake(["--cpus", "boot=100000"], ["--cpus boot", "'100000'", "at most"]),
        Mistake(["--cpus", "boot=4,max=2"], ["--cpus max", "'2'", "at least"]),
        Mistake(["--cpus", "boot=2,max=99999"], ["--cpus max", "'99999'", "at most"]),
        Mistake(["--cpus", "boot=two"], ["--cpus boot", "'two'"]),
        Mistake(["--cpus", "boot=-1"], ["--cpus boot", "'-1'"]),
        Mistake(["--cpus", "boots=1"], ["--cpus", "'boots'", "boot"]),
        Mistake(["--cpus", "boot=1,boot=2"], ["--cpus", "boot", "twice"]),
        Mistake(["--cpus", "boot=1", "--cpus", "boot=2"], ["--cpus", "twice"]),
        Mistake(["--cpus"], ["--cpus", "needs a value"]),
    ]
    private static let badMemory = [
        Mistake(["--memory", "size=0"], ["--memory size", "'0'"]),
        Mistake(["--memory", "size=1K"], ["--memory size", "'1K'"]),
        Mistake(["--memory", "size=many"], ["--memory size", "'many'"]),
        Mistake(["--memory", "size=1000000G"], ["--memory size", "'1000000G'"]),
        Mistake(["--memory", "size=99999999999999999999"], ["--memory size", "'9999999"]),
        Mistake(["--memory", "size=512M,size=1G"], ["--memory", "size", "twice"]),
    ]
    private static let badNetwork = [
        Mistake(["--net", "mac=12:34"], ["--net mac", "'12:34'", "aa:bb:cc:dd:ee:ff"]),
        Mistake(["--net", "mac=gg:00:00:00:00:00"], ["--net mac", "'gg:"]),
        Mistake(["--net", "mac=01:00:00:00:00:01"], ["--net mac", "group"]),
        Mistake(["--net", "ip=10.0.0,mask=255.0.0.0"], ["--net ip", "'10.0.0'"]),
        Mistake(["--net", "ip=10.0.0.1,mask=255.0.255.0"], ["--net mask", "'255.0.255.0'"]),
        Mistake(["--net", "ip=10.0.0.1"], ["--net mask", "together"]),
        Mistake(
            ["--net", "tap=a-name-that-is-too-long"],
            ["--net tap", "'a-name-that-is-too-long'", "15"]),
        Mistake(["--net", "tap=lo"], ["--net tap", "'lo'", "interface of another kind"]),
        Mistake(["--net", "fd=[999]"], ["--net fd", "999", "Bad file descriptor"]),
        Mistake(["--net", "mtu=1279"], ["--net mtu", "'1279'", "1280 to 65521"]),
        Mistake(["--net", "mtu=65522"], ["--net mtu", "'65522'", "1280 to 65521"]),
    ]
    private static let badWords = [
        Mistake(["--kernal", "x"], ["--kernal", "unknown option"]),
        Mistake(["--vhost-user", "x"], ["--vhost-user", "unknown option"]),
        Mistake(["word"], ["word"]),
        Mistake(["--serial", "loud"], ["--serial", "'loud'", "tty"]),
        Mistake(["--serial", "file"], ["--serial", "path"]),
        Mistake(["--console", "socket=/dev/null"], ["--console", "'/dev/null'", "not a socket"]),
        Mistake(["--disk", "paht=/x"], ["--disk", "'paht'", "path"]),
        Mistake(["--disk", "readonly=maybe,path=/x"], ["--disk readonly", "'maybe'"]),
        Mistake(["--disk", "readonly=on"], ["--disk", "path"]),
        Mistake(["--rng", "src=/does/not/exist"], ["--rng src", "'/does/not/exist'"]),
        Mistake(["--serial", "tty", "--console", "tty"], ["--console", "tty", "--serial"]),
        Mistake(
            ["--cpus", "boot=0", "--memory", "size=0"], ["--cpus boot", "'0'"],
            ["--memory size", "'0'"]),
    ]

    @Test(
        "a mistake on the command line is named",
        arguments: badCPUs + badMemory + badNetwork + badWords)
    func commandLine(mistake: Mistake) throws {
        try expect(
            ["--kernel", try Kernel.standard.path] + mistake.options, mistake.words)
    }

    @Test("a missing --kernel is named")
    func noKernel() throws {
        try expect([], [["--kernel", "needed"]])
    }

    @Test("a kernel that is no kernel is named")
    func kernels() throws {
        let scratch = try Scratch()
        let elf = try Data(contentsOf: URL(filePath: Kernel.standard.path))
        let image = Kernel(version: .debian13, format: .bzImage)
        let bzImage = try Data(contentsOf: URL(filePath: image.path))
        let files = [
            scratch("missing"),
            try scratch.file("empty"),
            try scratch.file("short-elf", elf.prefix(1 << 20)),
            try scratch.file("elf-header", elf.prefix(64)),
            try scratch.file("short-bzimage", bzImage.prefix(1 << 20)),
            try scratch.file("text", String(repeating: "I am no kernel.\n", count: 1000)),
            scratch.path,
            "/dev/null",
            Bed.monitorOrEmpty,
        ]
        for file in files {
            try expect(["--kernel", file], [["--kernel", "'\(file)'"]])
        }
    }

    @Test("a kernel or initramfs that the memory cannot hold is named")
    func tooBig() throws {
        let scratch = try Scratch()
        for kernel in Kernel.all {
            try expect(
                ["--kernel", try kernel.path, "--memory", "size=16M"],
                [["--kernel", try kernel.path]])
        }
        let big = try scratch.sparseFile("initramfs", bytes: 1 << 30)
        let huge = try scratch.sparseFile("huge", bytes: 1 << 42)
        for file in [big, huge] {
            try expect(
                ["--kernel", try Kernel.standard.path, "--initramfs", file],
                [["--initramfs", file]])
        }
    }

    @Test("a console file keeps what it holds when the guest does not start")
    func consoleFileStays() throws {
        let scratch = try Scratch()
        let log = try scratch.file("log", "of yesterday")
        let kernel = try Kernel.standard.path
        try expectLines(
            ["--kernel", kernel, "--memory", "size=16M", "--serial", "file=\(log)"],
            [["--kernel", kernel]])
        #expect(try String(contentsOfFile: log, encoding: .utf8) == "of yesterday")
    }

    @Test("an initramfs that cannot be read is named")
    func initramfs() throws {
        let scratch = try Scratch()
        for file in [scratch("missing"), try scratch.file("empty"), scratch.path] {
            try expect(
                ["--kernel", try Kernel.standard.path, "--initramfs", file],
                [["--initramfs", "'\(file)'"]])
        }
    }

    @Test("a command line that the kernel cannot take is named")
    func longCommandLine() throws {
        let kernel = try Kernel.standard.path
        try expect(
            ["--kernel", kernel, "--cmdline", String(repeating: "x", count: 70000)],
            [["--cmdline"]])
    }

    @Test("a disk that cannot be used is named")
    func disks() throws {
        let scratch = try Scratch()
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        let kernel = ["--kernel", try Kernel.standard.path]
        for file in [scratch("missing"), scratch.path, try scratch.file("empty"), "/dev/null"] {
            try expect(kernel + ["--disk", "path=\(file)"], [["--disk path", "'\(file)'"]])
        }
        let twice = ["--disk", "path=\(disk)", "path=\(disk)"]
        try expect(kernel + twice, [["--disk path", "'\(disk)'", "used"]])
        try expect(
            kernel + ["--disk", "path=\(disk),readonly=on", "path=\(disk)"],
            [["--disk path", "'\(disk)'", "used"]])
        try expect(
            kernel + ["--disk", "path=\(disk),serial=a-serial-number-of-21"],
            [["--disk serial", "at most 20"]])
    }

    @Test("a disk that its user may not read or write is named")
    func unreadableDisk() throws {
        let scratch = try Scratch()
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        let kernel = try scratch.copy(Kernel.standard.path)
        for (mode, option) in [(0o000, "readonly=on"), (0o444, "readonly=off")] {
            chmod(disk, mode_t(mode))
            try expect(
                ["--kernel", kernel, "--disk", "path=\(disk),\(option)"],
                [["--disk path", "'\(disk)'", "ermission"]], through: Self.asNobody)
        }
    }

    @Test("the right to make a tap, when it is lacking, is named")
    func noTap() throws {
        let scratch = try Scratch()
        try expect(
            ["--kernel", try scratch.copy(Kernel.standard.path), "--net", "tap=swl-denied"],
            [["--net tap", "'swl-denied'", "CAP_NET_ADMIN"]], through: Self.asNobody)
    }

    @Test("a tap that belongs to somebody else is named, with what would do")
    func foreignTap() throws {
        let scratch = try Scratch()
        try HostCommand.run("ip", "tuntap", "add", "swl-owned", "mode", "tap", "user", "1234")
        try expect(
            ["--kernel", try scratch.copy(Kernel.standard.path), "--net", "tap=swl-owned"],
            [["--net tap", "'swl-owned'", "CAP_NET_ADMIN", "backend=user"]],
            through: Self.asNobody)
        try HostCommand.run("ip", "link", "delete", "swl-owned")
    }

    @Test("a host without passt, or without taps, is told of")
    func noProgram() throws {
        let kernel = ["--kernel", try Kernel.standard.path]
        try expect(
            kernel + ["--net", "backend=user"], [["--net backend", "install the package 'passt'"]],
            through: Self.inNamespace(
                "file=$(command -v passt || echo /dev/null); mount --bind /dev/null $file"))
        try expect(
            kernel + ["--net", "tap=swl-none"], [["--net tap", "/dev/net/tun", "No such file"]],
            through: Self.inNamespace("mount -t tmpfs none /dev/net"))
    }

    @Test("what another process uses is named, and stays")
    func inUse() throws {
        let scratch = try Scratch()
        let kernel = ["--kernel", try Kernel.standard.path]
        let disk = try scratch.sparseFile("disk", bytes: 1 << 20)
        var boot = Boot("echo ready; read word")
        boot.serial = "socket=\(scratch("socket"))"
        boot.consoleWords = ["console=hvc0"]
        boot.console = "tty"
        boot.options = ["--disk", "path=\(disk)", "--net", "tap=swl-taken"]
        let guest = try boot.start(scratch)
        try guest.wait(for: "ready")

        try expectLines(
            kernel + ["--disk", "path=\(disk)"], [["--disk path", "'\(disk)'", "used"]])
        try expectLines(kernel + ["--net", "tap=swl-taken"], [["--net tap", "'swl-taken'"]])
        try expectLines(
            kernel + ["--serial", "socket=\(scratch("socket"))"],
            [["--serial", scratch("socket")]])

        #expect(scratch.exists("socket"))
        #expect(try Bed.interfaces.contains("swl-taken"))
        guest.type("word\n")
        #expect(try guest.waitForExit() == 0)
    }

    @Test("a terminal is as before after a mistake")
    func terminal() throws {
        // Found before and after the terminal is made raw.
        for (memory, option) in [
            ("size=256M", ["--rng", "src=/does/not/exist"]), ("size=16M", []),
        ] {
            var boot = Boot("echo never")
            boot.memory = memory
            boot.options = option
            boot.onTerminal = true
            let guest = try boot.start(Scratch())

            #expect(try guest.waitForExit() == 1)
            #expect(!guest.firstSettings.isEmpty)
            #expect(guest.terminalSettings == guest.firstSettings)
        }
    }

    @Test("a machine without KVM is told of")
    func noKVM() throws {
        let kernel = ["--kernel", try Kernel.standard.path]
        try expect(
            kernel, [["/dev/kvm", "does not exist"]],
            through: Self.inNamespace("mount -t tmpfs none /dev"))
        try expect(
            kernel, [["/dev/kvm"]],
            through: Self.inNamespace("mount --bind /dev/null /dev/kvm"))
        try expect(
            kernel, [["/dev/kvm", "may not be opened"]],
            through: Self.inNamespace(
                Self.privateKVM(mode: 600),
                "exec setpriv --reuid 65534 --regid 65534 --clear-groups"))
    }

    @Test("a KVM that lacks a capability is told of, with the capability's name")
    func lackingKVM() throws {
        let kernel = try Kernel.standard.path
        let monitor = try Bed.monitor
        // KVM_CAP_IRQFD.
        let result = try SystemCallFilter.withoutCapability(32) {
            let result = try HostCommand([monitor, "--kernel", kernel])
            return (status: result.status, errors: result.errors)
        }

        #expect(result.status == 1)
        #expect(result.errors == "swiftlet-vmm: /dev/kvm lacks what is needed: KVM_CAP_IRQFD\n")
    }

    /// Runs the monitor; it must end by itself with these messages and leave nothing behind.
    private func expect(
        _ options: [String], _ messages: [[String]], through wrapper: [String] = [],
        _ location: SourceLocation = #_sourceLocation
    ) throws {
        // Tests beside this one name their taps "swl-...".
        let before = try Bed.interfaces.filter { !$0.hasPrefix("swl") }
        try expectLines(options, messages, through: wrapper, location)
        let after = try Bed.interfaces.filter { !$0.hasPrefix("swl") }
        #expect(after == before, sourceLocation: location)
    }

    private func expectLines(
        _ options: [String], _ messages: [[String]], through wrapper: [String] = [],
        _ location: SourceLocation = #_sourceLocation
    ) throws {
        let scratch = try Scratch()
        let programs = try Scratch()
        chmod(scratch.path, 0o777)
        // Endpoints that stay behind would show.
        let own = options.contains("--serial") ? [] : ["--serial", "socket=\(scratch("socket"))"]
        // Another user may not see where the monitor lies.
        let monitor = try wrapper.isEmpty ? Bed.monitor : programs.copy(Bed.monitor)
        let result = try HostCommand(wrapper + [monitor] + options + own)
        let lines = result.errors.split(separator: "\n")
        let shown = options.map { $0.prefix(60) }
        let told = "\(shown): status \(result.status), \(lines)"
        #expect(result.status == 1, "\(told)", sourceLocation: location)
        #expect(lines.count == messages.count, "\(told)", sourceLocation: location)
        #expect(result.output == "", "\(told)", sourceLocation: location)
        for (line, words) in zip(lines, messages) {
            for word in words {
                #expect(line.contains(word), "\(told)", sourceLocation: location)
            }
        }
        let left = try FileManager.default.contentsOfDirectory(atPath: scratch.path)
        #expect(left.isEmpty, "\(told)", sourceLocation: location)
    }

    private static let asNobody = inNamespace(
        privateKVM(mode: 666), "exec setpriv --reuid 65534 --regid 65534 --clear-groups")

    /// A command that runs the words after it in a mount namespace of its own.
    private static func inNamespace(_ setup: String, _ run: String = "exec") -> [String] {
        ["unshare", "-m", "sh", "-ec", "\(setup); \(run) \"$@\"", "sh"]
    }

    /// A device node of our own, so that no other test sees its mode.
    private static func privateKVM(mode: Int) -> String {
        """
        numbers=$(stat -c '0x%t 0x%T' /dev/kvm); mount -t tmpfs none /mnt
        mknod /mnt/kvm c $numbers; chmod \(mode) /mnt/kvm; mount --bind /mnt/kvm /dev/kvm
        """
    }
}

extension Bed {
    /// A program that is an ELF file and no kernel.
    static var monitorOrEmpty: String { (try? monitor) ?? "" }
}
