import Foundation
import Synchronization
import Testing
import VMMHost

@testable import VMMSandbox

@Suite("Thread rules")
struct ThreadRulesTests {
    private static let confined = ThreadRole.allCases.filter { $0 != .tool }
    private static let x86: UInt32 = 0xc000_003e

    private func rules(
        _ needs: SandboxNeeds = SandboxNeeds(), takesRequests: Bool = false
    ) -> ThreadRules {
        ThreadRules(needs, takesRequests: takesRequests)
    }

    private func allows(
        _ rules: SystemCallRules, _ call: UInt32, _ arguments: [UInt64] = []
    ) -> Bool {
        let program = FilterProgram(rules, otherwise: .trap)
        let verdict = FilterInterpreter(program.code).decide(call, Self.x86, arguments)
        return verdict == FilterProgram.Verdict.allow.word
    }

    @Test(
        "no thread starts programs, traces others, mounts, or makes memory executable",
        arguments: confined)
    func never(role: ThreadRole) {
        let everything = SandboxNeeds.images + .sockets + .streams
        let list = rules(everything, takesRequests: true).rules(of: role)
        // execve, execveat, fork, vfork, ptrace, process_vm_readv and writev, mount, pivot_root,
        // chroot, setuid, init_module, bpf, kexec_load, unshare, setns, keyctl, perf_event_open,
        // userfaultfd, pidfd_open, open_by_handle_at.
        for call in [
            59, 322, 57, 58, 101, 310, 311, 165, 155, 161, 105, 175, 321, 246, 272, 308, 250, 298,
            323, 434, 304,
        ] as [UInt32] { #expect(!allows(list, call), "\(call)") }
        // mmap and mprotect with PROT_EXEC; a terminal that is typed into (TIOCSTI); a process.
        #expect(!allows(list, 9, [0, 4096, 7]))
        #expect(!allows(list, 10, [0, 4096, 5]))
        #expect(!allows(list, 16, [0, 0x5412]))
        #expect(!allows(list, 56, [17]))
        // Memory that grows downwards, or of other pages.
        #expect(!allows(list, 9, [0, 4096, 3, 0x122]))
        #expect(!allows(list, 9, [0, 4096, 3, 0x40022]))
        #expect(allows(list, 9, [0, 4096, 3, 0x22]))
        // A signal to another process, its limits and its CPUs; the switches of prctl.
        #expect(!allows(list, 234, [1, 1, 9]))
        #expect(!allows(list, 62, [1, 9]))
        #expect(!allows(list, 302, [1]))
        #expect(!allows(list, 203, [1]))
        #expect(!allows(list, 157, [4, 1]))
    }

    @Test("a switch takes clients and hands bytes on, and neither opens, connects nor starts any")
    func frameSwitch() {
        let list = ThreadRules.frameSwitch
        // accept4, recvfrom, sendto, epoll_wait, close.
        for call in [288, 45, 44, 232, 3] as [UInt32] { #expect(allows(list, call), "\(call)") }
        // open, openat, openat2, creat, socket, connect, bind, clone, fork, execve, kill, rename,
        // mknod, link, chmod, io_uring_setup, prctl(PR_SET_DUMPABLE), an ioctl of a tap.
        for call in [2, 257, 437, 85, 41, 42, 49, 56, 57, 59, 62, 82, 133, 86, 90, 425] as [UInt32]
        {
            #expect(!allows(list, call, [1, 1, 1]), "\(call)")
        }
        #expect(!allows(list, 157, [4, 1]))
        #expect(!allows(list, 16, [0, 0x4004_54ca]))
    }

    /// A thread's role is written where it is made; that is what its rules are by.
    @Test("each thread of the monitor has the role of its kind")
    func roles() throws {
        let sources = URL(filePath: #filePath).deletingLastPathComponent()
            .appending(path: "../../Sources").standardized
        var found: [String: Set<String>] = [:]
        let files = FileManager.default.enumerator(at: sources, includingPropertiesForKeys: nil)
        for case let file as URL in try #require(files)
        where file.pathExtension == "swift" && !file.path.contains("TestSupport") {
            let text = try String(contentsOf: file, encoding: .utf8)
            let start =
                /Thread\(\s*name: "(\\\(device\)_q|[a-z]+)[^"]*",\s*role: \.([a-z]+)/
            for match in text.matches(of: start) {
                found[String(match.1), default: []].insert(String(match.2))
            }
        }
        #expect(
            found == [
                "api": ["api"], "disk": ["disk"], "io": ["device"], "vcpu": ["processor"],
                "errand": ["errand"], "load": ["loader"], "\\(device)_q": ["device"],
            ])
    }

    @Test("only a thread that opens files may open one", arguments: confined)
    func files(role: ThreadRole) {
        let opens: Set<ThreadRole> = [.control, .errand]
        #expect(allows(rules(takesRequests: true).rules(of: role), 257) == opens.contains(role))
        #expect(!allows(rules().rules(of: role), 257))
    }

    @Test("only vCPUs run guests, and those who start vCPUs", arguments: confined)
    func guests(role: ThreadRole) {
        let runs: Set<ThreadRole> = [.control, .errand, .processor]
        #expect(allows(rules().rules(of: role), 16, [5, 0xae80]) == runs.contains(role))
    }

    @Test("without sockets there are none, and with them no others than Unix sockets")
    func sockets() {
        #expect(!allows(rules(.images + .streams).rules(of: .device), 41, [1]))
        let list = rules(.sockets).rules(of: .device)
        #expect(allows(list, 41, [1, 1]))
        for family in [0, 2, 10, 16, 17, 40] as [UInt64] { #expect(!allows(list, 41, [family])) }
    }

    @Test("the main thread may do what the threads may that it starts")
    func inheritance() {
        let all = rules(.images + .sockets + .streams, takesRequests: true)
        let main = all.rules(of: .control)
        for role in [ThreadRole.processor, .device, .disk, .loader] {
            for rule in all.rules(of: role).rules {
                var arguments = [UInt64](repeating: 0, count: 6)
                for test in rule.tests { arguments[test.index] = UInt64(test.values[0]) }
                #expect(allows(main, rule.call.rawValue, arguments), "\(role) \(rule.call)")
                for test in rule.tests {
                    for value in test.values {
                        var others = arguments
                        others[test.index] = UInt64(value)
                        #expect(allows(main, rule.call.rawValue, others), "\(role) \(rule.call)")
                    }
                }
            }
        }
    }

    @Test("each kind of thread tries forbidden calls, and the kernel refuses", arguments: confined)
    func refusals(role: ThreadRole) throws {
        let program = FilterProgram(rules(.images).rules(of: role), otherwise: .fail(1)).code
        let codes = Mutex<[Int32]>([])
        let thread = try HostThread(name: "probe", role: .tool) {
            do {
                try Privileges.forbidNew()
                try SystemCallFilter.install(program)
            } catch { return codes.withLock { $0.append(-1) } }
            let result = [
                open("/dev/null", O_RDONLY), socket(AF_INET, 1, 0), kill(getpid(), 0),
                chdir("/"), unlink("/none/none"),
            ]
            let code = errno
            codes.withLock { $0 = result.dropLast() + [code] }
        }
        thread.join()
        let found = codes.withLock { $0 }
        #expect(found.dropLast() == [-1, -1, -1, -1])
        // Of the calls the main thread alone unlinks: sockets, at its end.
        let mayUnlink = role == .control || role == .errand
        #expect(found.last == (mayUnlink ? ENOENT : EPERM))
    }

    @Test("the kernel knows each of the verdicts", arguments: [0, 1, 2, 3])
    func verdicts(index: Int) {
        let all: [FilterProgram.Verdict] = [.allow, .log, .trap, .fail(1)]
        #expect(SystemCallFilter.knows(verdict: all[index].word))
        #expect(!SystemCallFilter.knows(verdict: 0x1234_0000))
    }

    @Test("a trapped call ends the process with a line that names thread and call")
    func message() throws {
        let program = FilterProgram(rules().rules(of: .loader), otherwise: .trap).code
        // Whatever thread ends the process gives the terminal its settings back.
        let terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        defer { close(terminal) }
        var settings = termios()
        tcgetattr(terminal, &settings)
        let (status, text) = try Self.inChild {
            guard (try? Privileges.forbidNew()) != nil else { return }
            SystemCallFilter.reportViolations()
            guard (try? SystemCallFilter.install(program)) != nil else { return }
            tcsetattr(terminal, TCSANOW, &settings)
            _ = chdir("/")
        }
        #expect(status == SystemCallFilter.violationStatus)
        #expect(text.hasPrefix("swiftlet: the thread '"))
        #expect(text.hasSuffix("' made the system call chdir (80), which its sandbox forbids\n"))
    }

    /// Runs `body` in a copy of this process, which allocates nothing on the way; tells the copy's
    /// exit status, or the signal that ended it as a negative number, and what it wrote as errors.
    private static func inChild(_ body: () -> Void) throws -> (status: Int32, text: String) {
        typealias Fork = @convention(c) () -> pid_t
        let fork = unsafeBitCast(try #require(dlsym(nil, "fork")), to: Fork.self)
        let pipe = Pipe()
        let output = pipe.fileHandleForWriting.fileDescriptor
        let child = fork()
        if child == 0 {
            dup2(output, 2)
            body()
            _exit(1)
        }
        try pipe.fileHandleForWriting.close()
        let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
        var status: Int32 = 0
        waitpid(child, &status, 0)
        let signal = status & 0x7f
        return (
            signal == 0 ? status >> 8 & 0xff : -signal, String(decoding: data, as: UTF8.self)
        )
    }
}
