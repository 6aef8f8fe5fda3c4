import VMMBase
import VMMHost

/// Builds the jail that a plan describes, and runs its program there. The order of the steps is
/// that of Firecracker's jailer (reference/firecracker.md, section 9); what it does not have,
/// namespaces of users and exposed files, has its place among them.
package struct Jail {
    private let plan: JailPlan
    private let startNanoseconds: UInt64
    private let startProcessorMicroseconds: UInt64

    /// Room for folders and empty files, which is all that is in memory.
    private static let memoryByteCount = 1 << 20
    /// A folder that every host has, and that nothing in a jail is taken from.
    private static let memoryPlace = "/proc"

    package init(_ plan: JailPlan, clock: any HostClock) {
        self.plan = plan
        startNanoseconds = clock.monotonicNanoseconds()
        startProcessorMicroseconds = SoleThread.processorMicroseconds
    }

    /// Becomes the program in the jail; what returns is the command that stays outside, with its
    /// exit status. The calling process must have one thread.
    package func run() throws -> Int32 {
        SoleThread.closeDescriptors(keeping: plan.descriptors)
        let root = try prepareRoot()
        try enterNetwork()
        for (limit, value) in plan.limits { try SoleThread.set(limit, value) }
        try plan.groups?.join(program: plan.program, id: plan.id)
        let null = plan.isDaemon ? try FileDescriptor.open("/dev/null", .readWrite) : nil
        let faultMinor = Self.faultDeviceMinor()
        try separate()
        try furnish(root, faultMinor: faultMinor)
        return try start(null)
    }

    // MARK: the root

    private func prepareRoot() throws -> String {
        guard let folder = plan.folder else { return Self.memoryPlace }
        try FileTree.makeFolders(folder)
        if FileTree.kind(folder + notePath) != nil { throw taken("it is there") }
        if !plan.isRootless { try copyProgram(into: folder) }
        return folder
    }

    /// A copy shares no page of memory with other jails.
    private func copyProgram(into folder: String) throws {
        let path = "\(folder)/\(plan.program)"
        try FileTree.copy(
            plan.executable, to: path, mode: 0o755, user: plan.user, group: plan.group)
    }

    private func enterNetwork() throws {
        guard case .named(let path) = plan.network else { return }
        try Namespaces.enter(path, .networks)
    }

    /// Of `/dev/userfaultfd`, whose number is each boot's own; nil where the kernel has none.
    private static func faultDeviceMinor() -> UInt32? {
        let devices = (try? FileTree.text("/proc/misc")) ?? ""
        for line in devices.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2, words[1] == "userfaultfd" { return UInt32(words[0]) }
        }
        return nil
    }

    /// Namespaces, and mounts that the host does not see.
    private func separate() throws {
        var own: Namespaces = [.mounts]
        if plan.network == .own { own.insert(.networks) }
        // Firecracker's jailer leaves these; whoever has its root in memory has asked for no less
        // than all.
        if plan.isRootless || plan.root == .memory { own.formUnion([.messages, .hostName]) }
        if plan.isRootless {
            try Namespaces.makeUsers(user: plan.user, group: plan.group, with: own)
        } else {
            try Namespaces.make(own)
        }
        try MountTree.detach()
    }

    /// What is to be seen is taken from the host first; then the host is left, and all names in the
    /// jail are looked up from inside. Who was in it before may have put links there: they lead out
    /// of it no more, and are not followed either, for what is mounted in it is the host's. For the
    /// same reason the jail's own folders are made before anything is shown.
    private func furnish(_ root: String, faultMinor: UInt32?) throws {
        var sights = try plan.exposures.map { try Sight($0) }
        if plan.root == .memory || plan.isRootless {
            sights.append(try Sight(program: plan.executable, as: "/\(plan.program)"))
        }
        if plan.isRootless { sights += try plan.devices.compactMap { try Sight(device: $0) } }
        switch plan.root {
        case .folder: try MountTree.makeMount(of: root)
        case .memory: try MountTree.mountMemory(at: root, byteCount: Self.memoryByteCount)
        }
        try MountTree.enter(root)
        for folder in ["/dev/net", "/run", plan.workingFolder] {
            try Place(folder, followsLinks: false).makeFolder()
        }
        if !plan.isRootless { try makeDevices(faultMinor) }
        for sight in sights { try sight.show(followsLinks: plan.root == .memory) }
        if plan.root == .memory { try MountTree.forbidWriting(at: "/") }
        try MountTree.go(to: plan.workingFolder)
    }

    private func makeDevices(_ faultMinor: UInt32?) throws {
        for folder in ["/", "/dev", "/dev/net", "/run"] {
            try Place(folder, followsLinks: false).makeFolder(
                mode: 0o700, user: plan.user, group: plan.group)
        }
        var devices: [(path: String, major: UInt32, minor: UInt32)] = [
            ("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9),
        ]
        if let faultMinor { devices.append(("/dev/userfaultfd", 10, faultMinor)) }
        for device in devices where plan.devices.contains(device.path) {
            do throws(HostError) {
                try Place(device.path, followsLinks: false).makeDevice(
                    major: device.major, minor: device.minor, user: plan.user, group: plan.group)
            } catch {
                // As Firecracker's jailer, and for the same reason: few programs miss it.
                guard device.path == "/dev/urandom" else { throw error }
                Log.warning("\(error)")
            }
        }
    }

    /// Something of the host that is seen in the jail.
    private struct Sight {
        private let view: MountTree.View
        private let name: String

        init(_ exposure: JailPlan.Exposure) throws(HostError) {
            let view = try MountTree.View(of: exposure.path)
            var limits: MountTree.Limits = [.noOtherUser, .noPrograms]
            if !exposure.isWritable { limits.insert(.noWriting) }
            let kind = try view.kind()
            if kind != .characterDevice, kind != .blockDevice { limits.insert(.noDevices) }
            try view.limit(limits)
            self.view = view
            name = exposure.path
        }

        init(program path: String, as name: String) throws(HostError) {
            let view = try MountTree.View(of: path)
            try view.limit([.noWriting, .noOtherUser, .noDevices])
            self.view = view
            self.name = name
        }

        /// Nil where the host has no such device.
        init?(device: String) throws(HostError) {
            guard FileTree.kind(device) != nil else { return nil }
            try self.init(JailPlan.Exposure(device, isWritable: true))
        }

        /// Inside of the jail.
        func show(followsLinks: Bool) throws(HostError) {
            let place = try Place(name, followsLinks: followsLinks)
            let isFolder = try view.kind() == .directory
            try view.show(at: isFolder ? place.makeFolder() : place.makeFile())
        }
    }

    // MARK: the program

    private func start(_ null: FileDescriptor?) throws -> Int32 {
        if let null {
            // Two steps: one to lead no group of processes and so be able to begin a session, one
            // to lead none of that session, and so never to get a terminal.
            if case .parent = try SoleThread.fork() { return 0 }
            try SoleThread.beginSession()
            if case .parent = try SoleThread.fork() { return 0 }
            try SoleThread.setStandardStreams(null)
        }
        if plan.hasOwnProcesses { try Namespaces.make(.processes) }
        let stays = plan.waits && !plan.isDaemon
        if plan.hasOwnProcesses || stays {
            if plan.waits { SoleThread.holdSignals() }
            let command = stays ? try SoleThread.handle() : nil
            if case .parent(let child) = try SoleThread.fork() {
                try note(child)
                return stays ? SoleThread.wait(for: child) : 0
            }
            // The terminal goes on with the command that ended.
            if !plan.waits, !plan.isDaemon { try SoleThread.beginSession() }
            try becomeUser()
            // Behind it, for the kernel forgets this when the user changes.
            if let command { SoleThread.end(with: command) }
        } else {
            try note(ProcessIdentifier.current)
            try becomeUser()
        }
        let words = [plan.program] + timing + plan.arguments
        try SoleThread.execute("/\(plan.program)", words)
    }

    private func becomeUser() throws(HostError) {
        try SoleThread.become(user: plan.user, group: plan.group)
        if let capabilities = plan.capabilities { try Privileges.bound(to: capabilities) }
        try Privileges.forbidNew()
    }

    /// Leaves the program's number, as the host counts, in the jail. A file that is there belongs
    /// to one that runs, or ran.
    private func note(_ process: Int32) throws {
        guard plan.root != .memory else { return }
        let file: FileDescriptor
        do throws(HostError) {
            file = try FileDescriptor.open(
                notePath, [.writeOnly, .create, .exclusive], mode: 0o644)
        } catch {
            throw taken(error.reason)
        }
        try file.writeWhole("\(process)", notePath)
    }

    private var notePath: String { "/\(plan.program).pid" }

    private func taken(_ reason: String) -> ConfigurationProblem {
        ConfigurationProblem(
            option: "--id", value: plan.id,
            reason: "its jail has or had a program: '\(plan.folder ?? "")\(notePath)': \(reason)")
    }

    /// What Firecracker takes besides its user's arguments. `swiftlet-vmm` is it under that name.
    private var timing: [String] {
        guard plan.program.hasPrefix("firecracker") else { return [] }
        let used = SoleThread.processorMicroseconds
        return [
            "--id", plan.id,
            "--start-time-us", "\(startNanoseconds / 1000)",
            "--start-time-cpu-us", "\(startProcessorMicroseconds)",
            "--parent-cpu-time-us", "\(used - min(used, startProcessorMicroseconds))",
        ]
    }
}
