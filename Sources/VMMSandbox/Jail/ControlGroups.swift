import VMMBase
import VMMHost

/// What a process is counted and limited by (cgroups(7)), in either version. Groups are left for
/// whoever runs the host, as Firecracker's jailer leaves them.
package struct ControlGroups: Sendable {
    /// A file of a group, and what is written to it.
    package struct Setting: Equatable, Sendable {
        package let file: String
        package let value: String

        /// `cpu.shares=10`.
        package init?(_ text: String) {
            let parts = text.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, !parts[0].contains("/"),
                let dot = parts[0].firstIndex(of: "."), dot != parts[0].startIndex
            else { return nil }
            file = String(parts[0])
            value = String(parts[1])
        }

        var controller: String { String(file.prefix { $0 != "." }) }
    }

    package enum Version: String, CaseIterable, Sendable {
        case one = "1"
        case two = "2"
    }

    package var version = Version.one
    package var settings: [Setting] = []
    /// The group above the jail's own, below the mount; nil: named after the program.
    package var parent: String?

    package init() {}

    /// What is wrong with the name of a parent, if anything.
    package static func problem(parent: String) -> String? {
        guard !parent.hasPrefix("/"), !parent.split(separator: "/").contains("..") else {
            return "expected a path below the mount, without .."
        }
        return nil
    }

    /// Puts the calling process into its group. `program` and `id` name it.
    package func join(program: String, id: String) throws {
        let mounts = try FileTree.text("/proc/mounts")
        let parent = parent ?? program
        switch version {
        case .one: try joinOld(mounts, "\(parent)/\(id)")
        case .two: try joinNew(mounts, parent, id)
        }
    }

    // MARK: version 1

    private func joinOld(_ mounts: String, _ group: String) throws {
        var joined: Set<String> = []
        for setting in settings {
            let controller = setting.controller
            let mount = try Self.mount(mounts, controller: controller)
            try FileTree.makeFolders("\(mount)/\(group)")
            // A new group of processors and memory nodes is empty, and takes nobody.
            if controller == "cpuset", joined.insert(controller).inserted {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    try Self.inherit(file, from: mount, downTo: group)
                }
            }
            try Self.write(setting.value, "\(mount)/\(group)/\(setting.file)")
        }
        for controller in Set(settings.map(\.controller)) {
            let mount = try Self.mount(mounts, controller: controller)
            try Self.write("\(ProcessIdentifier.current)", "\(mount)/\(group)/tasks")
        }
    }

    /// Gives each group on the way that has nothing what the one above it has.
    private static func inherit(_ file: String, from mount: String, downTo group: String) throws {
        var above = try FileTree.text("\(mount)/\(file)")
        var place = mount
        for part in group.split(separator: "/") {
            place += "/" + part
            let own = try FileTree.text("\(place)/\(file)")
            if own.allSatisfy(\.isWhitespace) {
                try write(above, "\(place)/\(file)")
            } else {
                above = own
            }
        }
    }

    /// Where the controller is mounted, by the kernel's list: the type, and the controller among
    /// the options.
    static func mount(_ mounts: String, controller: String) throws(ConfigurationProblem) -> String {
        for line in mounts.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count >= 4, words[2] == "cgroup",
                words[3].split(separator: ",").contains(Substring(controller))
            else { continue }
            return String(words[1])
        }
        throw ConfigurationProblem(
            option: "--cgroup", value: controller,
            reason: "no cgroup of version 1 with this controller is mounted;"
                + " --cgroup-version 2 looks for the other one")
    }

    // MARK: version 2

    private func joinNew(_ mounts: String, _ parent: String, _ id: String) throws {
        let mount = try Self.mount(mounts)
        // Who limits nothing of its own goes into a group that is there, if it is.
        guard !settings.isEmpty else {
            guard FileTree.kind("\(mount)/\(parent)") == .directory else { return }
            return try Self.write(
                "\(ProcessIdentifier.current)", "\(mount)/\(parent)/cgroup.procs")
        }
        try FileTree.makeFolders("\(mount)/\(parent)/\(id)")
        for controller in Set(settings.map(\.controller)) {
            try Self.handDown(controller, from: mount, to: parent)
        }
        let group = "\(mount)/\(parent)/\(id)"
        for setting in settings { try Self.write(setting.value, "\(group)/\(setting.file)") }
        try Self.write("\(ProcessIdentifier.current)", "\(group)/cgroup.procs")
    }

    /// Lets the groups on the way, and those below the last, have the controller.
    private static func handDown(_ controller: String, from mount: String, to parent: String) throws
    {
        var place = mount
        for part in [""] + parent.split(separator: "/").map({ "/" + $0 }) {
            place += part
            let known = try FileTree.text("\(place)/cgroup.controllers")
            guard known.split(whereSeparator: \.isWhitespace).contains(Substring(controller)) else {
                throw ConfigurationProblem(
                    option: "--cgroup", value: controller,
                    reason: "the group '\(place)' does not have this controller")
            }
            try write("+\(controller)", "\(place)/cgroup.subtree_control")
        }
    }

    static func mount(_ mounts: String) throws(ConfigurationProblem) -> String {
        for line in mounts.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count >= 3, words[2] == "cgroup2" { return String(words[1]) }
        }
        throw ConfigurationProblem(
            option: "--cgroup-version", value: "2", reason: "no cgroup of version 2 is mounted")
    }

    private static func write(_ text: String, _ path: String) throws(HostError) {
        try FileDescriptor.open(path, .writeOnly).writeWhole(text, path)
    }
}
