import ArgumentParser
import VMMBase
import VMMHost
import VMMSandbox

/// `swiftlet jail`, and `jailer`: a program in a root, namespaces and groups of its own.
struct JailCommand: ParsableCommand {
    /// The name under which the tool is this command alone.
    static let otherName = "jailer"
    /// What Firecracker's jailer lets a program open.
    private static let descriptorLimit: UInt64 = 2048

    static let configuration = CommandConfiguration(
        commandName: "jail",
        abstract: "Runs a monitor in a jail, with the options of Firecracker's jailer.",
        discussion: """
            The jail's root is BASE/PROGRAM/ID/root on the host. All paths that the program gets \
            are inside; what it needs is linked or copied there before, or shown there by \
            --expose. Folders and control groups stay when the program has ended. Without root, or \
            with --rootless, namespaces of users do what rights would, and the root is in memory \
            unless --chroot-base-dir is given.
            """,
        version: "0.1.0")

    @Option(help: "The jail's name: letters, digits and dashes.")
    var id: String

    @Option(help: "The program; statically linked, for the jail has no libraries.")
    var execFile: String

    @Option(help: "The user that runs the program. Rootless: yours, unless given.")
    var uid: UInt32?

    @Option(help: "The group that runs the program. Rootless: yours, unless given.")
    var gid: UInt32?

    @Option(help: "The folder that all jails are in. [/srv/jailer]")
    var chrootBaseDir: String?

    @Option(help: "The file of a network namespace to enter.")
    var netns: String?

    @Flag(help: "Give the jail a network namespace of its own, with nothing in it.")
    var newNetNs = false

    @Flag(help: "Leave the terminal, and end while the program runs.")
    var daemonize = false

    @Flag(help: "Let the program see no other processes: it is the first of its namespace.")
    var newPidNs = false

    @Option(help: "A file of the jail's control group, and its value: cpu.shares=10.")
    var cgroup: [String] = []

    @Option(help: "The version of control groups.")
    var cgroupVersion: ControlGroups.Version = .one

    @Option(help: "The group above the jail's own. [the program's name]")
    var parentCgroup: String?

    @Option(help: "fsize=<bytes> or no-file=<number>. [no-file=2048]")
    var resourceLimit: [String] = []

    @Flag(help: "Use a namespace of users instead of rights.")
    var rootless = false

    @Option(help: "A file or folder of the host to have in the jail: PATH[,access=r|rw].")
    var expose: [String] = []

    @Argument(parsing: .postTerminator, help: "The program's arguments.")
    var arguments: [String] = []

    func run() throws {
        let clock = SystemClock()
        let status = try Jail(plan(), clock: clock).run()
        throw ExitCode(status)
    }

    private func plan() throws -> JailPlan {
        let isRootless = rootless || SoleThread.user != 0
        guard isRootless || (uid != nil && gid != nil) else {
            throw ValidationError("--uid and --gid are needed: who runs the program?")
        }
        let isInMemory = isRootless && chrootBaseDir == nil
        var plan = try JailPlan(
            id: id, executable: execFile, user: uid ?? SoleThread.user,
            group: gid ?? SoleThread.group,
            root: isInMemory ? .memory : .folder(base: chrootBaseDir ?? "/srv/jailer"))
        plan.arguments = arguments
        plan.isRootless = isRootless
        plan.network = try network()
        plan.hasOwnProcesses = newPidNs || isRootless
        plan.isDaemon = daemonize
        plan.waits = isRootless
        plan.groups = try groups()
        plan.limits = try resourceLimit.map { text throws(ConfigurationProblem) in
            try JailPlan.limit(text)
        }
        if !plan.limits.contains(where: { $0.limit == .descriptors }) {
            plan.limits.append((.descriptors, Self.descriptorLimit))
        }
        plan.exposures = try expose.map { text in
            guard let exposure = JailPlan.Exposure(text) else {
                throw ConfigurationProblem(
                    option: "--expose", value: text,
                    reason: "expected an absolute path, with ,access=rw to have it written")
            }
            return exposure
        }
        return plan
    }

    private func network() throws -> JailPlan.Network {
        guard let netns else { return newNetNs ? .own : .host }
        guard !newNetNs else {
            throw ValidationError("--netns and --new-net-ns exclude each other")
        }
        return .named(netns)
    }

    private func groups() throws(ConfigurationProblem) -> ControlGroups? {
        var groups = ControlGroups()
        groups.version = cgroupVersion
        groups.parent = parentCgroup
        if let parentCgroup, let problem = ControlGroups.problem(parent: parentCgroup) {
            throw ConfigurationProblem(
                option: "--parent-cgroup", value: parentCgroup, reason: problem)
        }
        for text in cgroup {
            guard let setting = ControlGroups.Setting(text) else {
                throw ConfigurationProblem(
                    option: "--cgroup", value: text,
                    reason: "expected <controller>.<file>=<value>")
            }
            groups.settings.append(setting)
        }
        // Without settings only the group above, of version 2, is something to be in.
        return cgroup.isEmpty && cgroupVersion == .one ? nil : groups
    }
}

extension ControlGroups.Version: ExpressibleByArgument {}
