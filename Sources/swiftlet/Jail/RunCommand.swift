import ArgumentParser
import VMMBase
import VMMHost
import VMMMachine
import VMMSandbox

/// `swiftlet run`: a virtual machine in the foreground, in a jail if asked.
struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Runs a virtual machine, with the options of swiftlet-vmm.",
        discussion: """
            With --jail, the monitor sees the files of its machine and no others, under their \
            names; no process but itself; and no network, unless the machine has a tap. A \
            socket's folder is there as a whole: give each machine one of its own. No rights are \
            needed.
            """)

    @Flag(help: "Run it in a jail.")
    var jail = false

    @Option(help: "The monitor. [swiftlet-vmm beside this program, or in PATH]")
    var execFile: String?

    @Argument(parsing: .captureForPassthrough, help: "The options of swiftlet-vmm.")
    var arguments: [String] = []

    func run() throws {
        let program = try monitor()
        guard jail else { try SoleThread.executeAsIs(program, ["swiftlet-vmm"] + arguments) }
        let clock = SystemClock()
        throw ExitCode(try Jail(plan(program), clock: clock).run())
    }

    private func monitor() throws(ToolError) -> String {
        if let execFile { return execFile }
        let own = (try? FileTree.canonical("/proc/self/exe")) ?? ""
        let beside =
            own.split(separator: "/").dropLast().map { "/" + $0 }.joined()
            + "/swiftlet-vmm"
        if FileTree.kind(beside) == .regular { return beside }
        guard let found = ChildProcess.find("swiftlet-vmm") else {
            throw ToolError("swiftlet-vmm is neither beside this program nor in PATH")
        }
        return found
    }

    private func plan(_ program: String) throws -> JailPlan {
        let options = try CommandLineArguments(arguments)
        try options.checkStartsNothing()
        var plan = try JailPlan(
            id: "run", executable: program, user: SoleThread.user, group: SoleThread.group,
            root: .memory)
        plan.arguments = arguments
        plan.isRootless = SoleThread.user != 0
        if !plan.isRootless {
            plan.capabilities =
                options.usesHostNetwork ? [.files, .networkAdministration] : .files
        }
        plan.network = options.usesHostNetwork ? .host : .own
        plan.hasOwnProcesses = true
        plan.waits = true
        plan.descriptors = options.descriptorNumbers
        plan.devices =
            ["/dev/kvm", "/dev/urandom"] + (options.usesHostNetwork ? ["/dev/net/tun"] : [])
        plan.workingFolder = MountTree.workingFolder
        plan.exposures = try Self.exposures(options.files())
        return plan
    }

    /// Files that are written are made, if they are not there yet: only what is there can be shown.
    private static func exposures(_ files: [SandboxFile]) throws -> [JailPlan.Exposure] {
        var writable: [String: Bool] = [:]
        for file in files where !file.path.hasPrefix("/dev/net/") {
            let path =
                file.path.hasPrefix("/") ? file.path : MountTree.workingFolder + "/" + file.path
            let isFolder = !file.access.isDisjoint(with: [.makeFile, .makeSocket, .removeFile])
            if isFolder, (try? FileTree.canonical(path)) == "/" {
                throw ToolError("a socket in '/' would put all of the host into the jail")
            }
            let isWritten = isFolder || file.access.contains(.write)
            if isWritten, !isFolder, FileTree.kind(path) == nil {
                // Not waiting, if a FIFO has come there since.
                _ = try FileDescriptor.open(path, [.writeOnly, .create, .nonBlocking])
            }
            // What is not there is the monitor's to complain of.
            guard FileTree.kind(path) != nil else { continue }
            writable[path] = writable[path] ?? false || isWritten
        }
        // A folder before what is in it, or it would hide that.
        return writable.sorted { $0.key < $1.key }.map {
            JailPlan.Exposure($0.key, isWritable: $0.value)
        }
    }
}
