import Testing
import VMMBase
import VMMHost

@testable import VMMSandbox

@Suite("Jail plans")
struct JailPlanTests {
    @Test(
        "a jail's name is a folder's", arguments: ["a", "vm-7", String(repeating: "x", count: 64)])
    func names(id: String) throws {
        let plan = try JailPlan(
            id: id, executable: "/proc/self/exe", user: 1, group: 2, root: .folder(base: "/tmp"))
        #expect(plan.folder == "/tmp/\(plan.program)/\(id)/root")
    }

    @Test(
        "a name that is none, or a way out, is refused",
        arguments: ["", "a/b", "..", "a b", "ä", "٣", String(repeating: "x", count: 65)])
    func badNames(id: String) {
        #expect(throws: ConfigurationProblem.self) {
            try JailPlan(
                id: id, executable: "/proc/self/exe", user: 1, group: 2, root: .memory)
        }
    }

    @Test("the program and the folder of all jails have to be there")
    func absences() {
        for (program, base) in [
            ("/nothing", "/tmp"), ("/tmp", "/tmp"), ("/proc/self/exe", "/nothing"),
        ] {
            #expect(throws: ConfigurationProblem.self) {
                try JailPlan(
                    id: "a", executable: program, user: 1, group: 2, root: .folder(base: base))
            }
        }
    }

    @Test("limits and exposures")
    func parts() throws {
        let limit = try JailPlan.limit("no-file=12")
        #expect(limit.limit == .descriptors && limit.value == 12)
        for text in ["no-file", "no-file=", "no-file=-1", "cpu=1", "", "="] {
            #expect(throws: ConfigurationProblem.self) { try JailPlan.limit(text) }
        }
        #expect(JailPlan.Exposure("/a") == JailPlan.Exposure("/a", isWritable: false))
        #expect(JailPlan.Exposure("/a,access=rw") == JailPlan.Exposure("/a", isWritable: true))
        for text in ["", "a", "/a,rw", "/a,access=w", ",access=r"] {
            #expect(JailPlan.Exposure(text) == nil, "\(text)")
        }
    }

    @Test("settings of control groups name a file of one controller")
    func settings() {
        let setting = ControlGroups.Setting("cpu.max=10 100")
        #expect(setting?.file == "cpu.max" && setting?.value == "10 100")
        #expect(setting?.controller == "cpu")
        for text in [
            "", "cpu", "cpu=1", ".max=1", "cpu.max", "cpu.max=", "a/cpu.max=1", "../x.y=1",
        ] {
            #expect(ControlGroups.Setting(text) == nil, "\(text)")
        }
        #expect(ControlGroups.problem(parent: "a/b") == nil)
        #expect(ControlGroups.problem(parent: "/a") != nil)
        #expect(ControlGroups.problem(parent: "a/../b") != nil)
    }

    private static let mounts = """
        proc /proc proc rw 0 0
        cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
        cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0
        cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
        """

    @Test("a controller is found by the kernel's list of mounts")
    func mounts() throws {
        #expect(
            try ControlGroups.mount(Self.mounts, controller: "cpu") == "/sys/fs/cgroup/cpu,cpuacct")
        #expect(
            try ControlGroups.mount(Self.mounts, controller: "cpuset") == "/sys/fs/cgroup/cpuset")
        #expect(try ControlGroups.mount(Self.mounts) == "/sys/fs/cgroup/unified")
        #expect(throws: ConfigurationProblem.self) {
            try ControlGroups.mount(Self.mounts, controller: "rw2")
        }
        #expect(throws: ConfigurationProblem.self) { try ControlGroups.mount("") }
    }

    @Test("the words that this process was started with are the kernel's own")
    func arguments() throws {
        let known = try FileTree.text("/proc/self/cmdline").split(
            separator: "\0", omittingEmptySubsequences: false
        ).dropLast()
        // Nil where a library of the test's has changed the environment before.
        if let words = ProcessArguments.all { #expect(words == known.map(String.init)) }
    }
}
