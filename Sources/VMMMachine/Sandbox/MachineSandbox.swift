import VMMBase
import VMMDevices
import VMMHost
import VMMSandbox

/// How the process confines itself: threads as they start, and the main thread when the first guest
/// runs, for good. Belongs to the control loop's thread.
package final class MachineSandbox {
    private let options: SandboxOptions
    /// The API may ask for devices and machines that nobody knows yet.
    private let takesRequests: Bool
    /// Of landlock; 0 where it is not there, or not wanted.
    private let landlockVersion: Int
    private let nothing: LandlockRules?
    /// Nil where nothing is confined.
    private var confinement: Confinement?
    private var isConfined = false
    /// What the main thread will be held to.
    private var control: (rules: LandlockRules?, files: [SandboxFile]?)?
    /// What the main thread can still reach; nil for all.
    private var files: [SandboxFile]?

    /// Threads that start from now on are confined.
    package init(_ options: SandboxOptions, takesRequests: Bool) throws {
        self.options = options
        self.takesRequests = takesRequests
        landlockVersion = options.isHeldToFiles == false ? 0 : LandlockRules.version
        if options.isHeldToFiles == true, landlockVersion == 0 {
            throw ConfigurationProblem(
                option: SandboxOptions.filesOption, value: "on",
                reason: "this kernel has no landlock")
        }
        nothing = landlockVersion > 0 ? try LandlockRules(version: landlockVersion) : nil
        if let verdict = options.filter.verdict {
            guard SystemCallFilter.knows(verdict: verdict.word) else {
                throw ConfigurationProblem(
                    option: SandboxOptions.filterOption, value: options.filter.rawValue,
                    reason: "this kernel has no such filters; false goes without")
            }
        }
        if options.filter == .on { SystemCallFilter.reportViolations() }
        hold(threadsTo: [])
        if options.isHeldToFiles != false { tellGaps() }
    }

    private func tellGaps() {
        let gaps = LandlockRules.gaps(version: landlockVersion)
        if landlockVersion == 0 {
            Log.info("this kernel has no landlock: the monitor can reach all files of its user")
        } else if !gaps.isEmpty {
            let list = gaps.joined(separator: ", ")
            Log.info("landlock \(landlockVersion) of this kernel does not confine: \(list)")
        }
    }

    /// Has threads that start from now on confined to what these devices take; refuses those that a
    /// confined process cannot make any more.
    func prepare(for devices: [MachineOutline.Device]) throws(ConfigurationProblem) {
        for device in devices { try admit(device.spec) }
        hold(threadsTo: devices.map(\.spec))
    }

    /// The user wants neither half: then nothing else is taken from the process either, and what it
    /// starts for a device has the rights that it was started with.
    private var isOff: Bool { options.filter == .off && options.isHeldToFiles == false }

    private func hold(threadsTo devices: [any DeviceSpec]) {
        guard !isOff else { return }
        var program: (@Sendable (ThreadRole) -> [UInt64])?
        if let verdict = options.filter.verdict {
            program = { [takesRequests] role in
                let rules = Self.rules(for: devices, takesRequests: takesRequests)
                return FilterProgram(rules.rules(of: role), otherwise: verdict).code
            }
        }
        // A tap that comes later has to be made, or to be given its address.
        let confinement = Confinement(
            program: program, nothing: nothing,
            keeping: takesRequests ? .networkAdministration : [])
        confinement.start()
        self.confinement = confinement
    }

    /// Put together on each thread's own time, and forgotten.
    private static func rules(
        for devices: [any DeviceSpec], takesRequests: Bool
    ) -> ThreadRules {
        var needs = SandboxNeeds()
        for device in devices { needs.add(device.sandbox) }
        if takesRequests {
            for type in DeviceCatalog.all { needs.add(type.sandbox) }
        }
        return ThreadRules(needs, takesRequests: takesRequests)
    }

    /// Refuses a device that a confined process cannot make any more.
    func admit(_ device: any DeviceSpec) throws(ConfigurationProblem) {
        guard isConfined, device.startsProgram else { return }
        throw ConfigurationProblem(
            option: type(of: device).option, value: "",
            reason: "the monitor confined itself when its first guest started, and starts no"
                + " programs any more: start passt yourself and use backend=socket")
    }

    /// Makes what `confineControl` holds the main thread to: what the first guest's machine has. A
    /// rule that cannot be made is known before the guest runs.
    func prepareControl(
        _ configuration: MachineConfiguration, _ machine: any BootableMachine
    ) throws {
        try checkWish(configuration)
        guard !isConfined, confinement != nil else { return }
        guard landlockVersion > 0, configuration.isHeldToFiles != false else {
            control = (nil, nil)
            return
        }
        let reached = reachable(configuration, machine)
        let listed = (options.rules + configuration.landlockRules).map(\.file)
        let rules = try LandlockRules(version: landlockVersion)
        for file in reached { try rules.allow(file.path, file.access) }
        // A rule for what is not there would do nothing, and its user would learn of it much later.
        for file in listed where try !rules.allow(file.path, file.access) {
            throw ConfigurationProblem(
                option: "\(LandlockRule.option) path", value: file.path,
                reason: "there is no such file or folder")
        }
        control = (rules, reached + listed)
    }

    /// What a configuration says may be more than the command line says, not less.
    private func checkWish(_ configuration: MachineConfiguration) throws(ConfigurationProblem) {
        let reason: String
        switch configuration.isHeldToFiles {
        case false where options.isHeldToFiles == true:
            reason = "the monitor was started with --landlock on"
        case true where options.isHeldToFiles == false:
            reason = "the monitor was started with --landlock off"
        case true where landlockVersion == 0: reason = "this kernel has no landlock"
        // Without a word landlock is on.
        case true where isConfined && files == nil,
            nil where isConfined && files == nil && landlockVersion > 0:
            reason = "the monitor confined itself for its first guest, without landlock"
        default: return try checkRules(configuration)
        }
        throw ConfigurationProblem(
            option: "landlock_enable", value: "\(configuration.isHeldToFiles ?? true)",
            reason: reason)
    }

    /// What the main thread can reach is fixed with the first guest.
    private func checkRules(
        _ configuration: MachineConfiguration
    ) throws(ConfigurationProblem) {
        guard isConfined, let files else { return }
        for rule in configuration.landlockRules.map(\.file)
        where !files.contains(where: { $0.covers(rule) }) {
            throw ConfigurationProblem(
                option: "\(LandlockRule.option) path", value: rule.path,
                reason: "the monitor confined itself for its first guest, without this one")
        }
    }

    /// Confines the calling thread, the main one; again is no harm. Half of it is none: a machine
    /// that boots later has it done again.
    func confineControl() throws(HostError) {
        guard !isConfined, let confinement, let control else { return }
        Privileges.hideMemory()
        if takesRequests { TapInterface.keepControlSockets() }
        try confinement.confineControl(files: control.rules)
        files = control.files
        isConfined = true
    }

    private func reachable(
        _ configuration: MachineConfiguration, _ machine: any BootableMachine
    ) -> [SandboxFile] {
        var files = machine.files
        if let socket = options.apiSocket { files.append(.socket(socket)) }
        guard takesRequests else { return files }
        for path in [configuration.kernel, configuration.initramfs].compactMap({ $0 }) {
            files.append(SandboxFile(path, .read))
        }
        // A tap is known by its name, not by its path.
        files.append(SandboxFile("/dev/net/tun", [.read, .write, .control]))
        // A core dump leaves out what no page is there for.
        files.append(SandboxFile("/proc/self/pagemap", .read))
        return files
    }

    /// What went wrong with what takes these files, and where it may be for one that is out of
    /// reach, that too.
    func explain(_ error: any Error, _ taken: [SandboxFile]) -> any Error {
        guard let files,
            let wanted = taken.first(where: { file in !files.contains { $0.covers(file) } })
        else { return error }
        let access = !wanted.access.isDisjoint(with: [.write, .makeFile, .makeSocket])
        return ConfigurationProblem(
            option: "\(LandlockRule.option) path", value: wanted.path,
            reason: "the monitor is confined to the files that it was started with; list this one"
                + " there, with access=\(access ? "rw" : "r"), to use it later (\(error))")
    }
}
