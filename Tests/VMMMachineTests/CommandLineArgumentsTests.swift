import Testing
import VMMBase
import VMMDevices

@testable import VMMMachine

/// Splits at spaces, parses, and gives the mistakes as the user reads them.
private func mistakes(_ line: String) -> [String] {
    do throws(ConfigurationError) {
        _ = try CommandLineArguments(line.split(separator: " ").map(String.init))
        return []
    } catch {
        return error.problems.map(\.description)
    }
}

@Suite("CommandLineArguments")
struct CommandLineArgumentsTests {
    @Test("every option of the machine reaches the configuration")
    func machineOptions() throws {
        let arguments = try CommandLineArguments([
            "--kernel", "/k", "--initramfs", "/i", "--cmdline", "console=ttyS0 root=/dev/vda",
            "--cpus", "boot=2,max=4,max_phys_bits=40,nested=off,core_scheduling=vcpu", "--memory",
            "size=1G,thp=off",
            "--log-file", "/l",
        ])
        let configuration = arguments.configuration
        #expect(configuration.kernel == "/k" && configuration.initramfs == "/i")
        #expect(configuration.commandLine == "console=ttyS0 root=/dev/vda")
        #expect(configuration.cpus.boot == 2 && configuration.cpus.maximum == 4)
        #expect(configuration.cpus.maximumPhysicalBits == 40)
        #expect(configuration.cpus.allowsNesting == false)
        #expect(configuration.cpus.coreScheduling == .processor)
        #expect(configuration.memory.byteCount == 1 << 30)
        #expect(configuration.memory.usesHugePages == false)
        #expect(arguments.logFile == "/l")
    }

    @Test("every kind of device is an option")
    func deviceOptions() throws {
        let values = [
            "serial": "null", "debug-console": "null", "console": "null", "disk": "path=/d",
            "net": "tap=t", "rng": "src=/dev/urandom",
            "vsock": "cid=3,socket=/s",
        ]
        let words = try DeviceCatalog.all.flatMap { type in
            type.isFlag ? [type.option] : [type.option, try #require(values[type.word])]
        }
        let devices = try CommandLineArguments(words).configuration.devices
        #expect(devices.map { type(of: $0).word } == DeviceCatalog.all.map { $0.word })
    }

    @Test("a repeatable option takes several values, and may be repeated, in order")
    func repeated() throws {
        let devices = try CommandLineArguments([
            "--disk", "path=/a", "path=/b", "--rng", "src=/r", "--disk", "path=/c",
        ]).configuration.devices
        #expect(devices.compactMap { ($0 as? BlockSpec)?.path } == ["/a", "/b", "/c"])
    }

    @Test(
        "a value may be attached, with equals signs of its own",
        arguments: zip(
            ["--cmdline=a=b c=d", "--cmdline=", "--cmdline==a"], ["a=b c=d", "", "=a"]))
    func attached(word: String, expected: String) throws {
        #expect(try CommandLineArguments([word]).configuration.commandLine == expected)
    }

    @Test(
        "flags need no value",
        arguments: zip(
            [["-v"], ["-vv"], ["-vvv", "-v"], []], [.info, .debug, .trace, .warning])
            as Zip2Sequence<[[String]], [LogLevel]>)
    func verbosity(words: [String], expected: LogLevel) throws {
        #expect(try CommandLineArguments(words).logLevel == expected)
    }

    @Test("the sandbox is on unless it is said otherwise, and each switch has its words")
    func sandbox() throws {
        let standard = try CommandLineArguments([]).sandbox
        #expect(standard.filter == .on)
        #expect(standard.isHeldToFiles == nil)
        #expect(try CommandLineArguments(["--landlock"]).sandbox.isHeldToFiles == true)
        #expect(try CommandLineArguments(["--landlock", "off"]).sandbox.isHeldToFiles == false)
        #expect(try CommandLineArguments(["--seccomp", "errno"]).sandbox.filter == .refuse)
        for words in [["--seccomp", "on"], ["--seccomp"], ["--landlock", "true"]] {
            #expect(throws: ConfigurationError.self) { try CommandLineArguments(words) }
        }
    }

    @Test("rules of landlock are no machine: a monitor with an API waits for one")
    func landlockRules() throws {
        let words = ["--api-socket", "/s", "--landlock-rules", "path=/a,access=rw"]
        let arguments = try CommandLineArguments(words)
        #expect(arguments.firstMachine == nil)
        #expect(arguments.sandbox.rules.count == 1)
        #expect(throws: ConfigurationError.self) {
            try CommandLineArguments(["--landlock-rules", "path=/a,access=x"])
        }
    }

    @Test("help and version have two spellings each")
    func helpAndVersion() throws {
        #expect(try CommandLineArguments(["--help"]).wantsHelp)
        #expect(try CommandLineArguments(["-h"]).wantsHelp)
        #expect(try CommandLineArguments(["--version"]).wantsVersion)
        #expect(try CommandLineArguments(["-V"]).wantsVersion)
    }

    @Test(
        "mistakes are named with their option and value",
        arguments: [
            ("--frobnicate", "--frobnicate: unknown option; --help lists all"),
            ("-x", "-x: unknown option; --help lists all"),
            ("word", "word: no option stands before this word"),
            ("-", "-: no option stands before this word"),
            ("--kernel", "--kernel: needs a value"),
            ("--disk", "--disk: needs a value"),
            ("--cpus", "--cpus: needs a value"),
            ("--kernel /a /b", "--kernel '/a /b': takes one value"),
            ("--serial tty null", "--serial 'null': takes one value"),
            ("--kernel /a --kernel /b", "--kernel: is given twice"),
            ("--serial tty --serial tty", "--serial: is given twice"),
            ("-v 3", "-v '3': takes no value"),
            ("--cpus boot=x", "--cpus boot 'x': expected a whole number from 0 to 4294967295"),
            ("--cpus boot=1,boot=2", "--cpus 'boot=1,boot=2': the key 'boot' is given twice"),
            (
                "--cpus sockets=1",
                "--cpus 'sockets': unknown key; known are boot, max, "
                    + "max_phys_bits, nested, core_scheduling"
            ),
            (
                "--memory size=1T",
                "--memory size '1T': expected a number of bytes, with K, M or G "
                    + "behind it if you like"
            ),
            (
                "--memory size=18446744073709551615G",
                "--memory size '18446744073709551615G': "
                    + "expected a number of bytes, with K, M or G behind it if you like"
            ),
            ("--memory 512M", "--memory '512M': unknown key; known are size, thp"),
            ("--disk path=[/a", "--disk 'path=[/a': brackets or quotes do not match"),
        ])
    func mistake(line: String, expected: String) {
        #expect(mistakes(line) == [expected])
    }

    @Test("all mistakes are told at once, in the order of the words")
    func allAtOnce() {
        #expect(
            mistakes("stray --kernel --frobnicate --disk path=/a readonly=on --serial x").count
                == 5)
    }
}
