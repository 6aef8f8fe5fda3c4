import VMMBase
import VMMHost

/// One thing that a host gives or lacks.
struct HostCheck {
    enum State: String {
        case good
        /// Something does without it.
        case missing
        /// No virtual machine runs.
        case failed
    }

    let name: String
    let state: State
    /// A sentence: what there is, or what is lacking and what that means.
    let detail: String

    /// All that is looked at, in the order of its weight.
    static func all() -> [HostCheck] {
        [
            kvm(), landlock(), filters(), namespaces(), cgroup(), cores(), hugePages(), rings(),
            taps(), passt(),
        ]
    }

    private static func text(_ path: String) -> String? {
        (try? FileTree.text(path))?.trimmingCharacters()
    }

    private static func exists(_ path: String) -> Bool {
        FileTree.kind(path) != nil
    }

    private static func kvm() -> HostCheck {
        do throws(KVMSystem.Unusable) {
            let system = try KVMSystem()
            let kinds = [
                ("kvm_intel", "Intel VT-x"), ("kvm_amd", "AMD SVM"),
                ("kvm_pvm", "paravirtual, which runs kernels made for it alone"),
            ]
            let kind = kinds.first { exists("/sys/module/\($0.0)") }?.1 ?? "of an unknown kind"
            let isNested =
                text("/proc/cpuinfo")?.contains(" hypervisor") == true
                ? "; this host is a virtual machine itself" : ""
            return HostCheck(
                name: "kvm", state: .good,
                detail: "\(kind), up to \(system.maximumVCPUs) vCPUs\(isNested)")
        } catch {
            return HostCheck(name: "kvm", state: .failed, detail: error.description)
        }
    }

    private static func cores() -> HostCheck {
        Privileges.canClaimCores
            ? HostCheck(
                name: "core scheduling", state: .good,
                detail: "nobody else's threads run on a core beside a machine's")
            : HostCheck(
                name: "core scheduling", state: .missing,
                detail: "not in this kernel: hyperthreads of one core are shared with others")
    }

    private static func landlock() -> HostCheck {
        let version = LandlockRules.version
        let gaps = LandlockRules.gaps(version: version)
        guard version > 0 else {
            return HostCheck(
                name: "landlock", state: .missing,
                detail: "not in this kernel: a monitor can reach all files of its user")
        }
        return HostCheck(
            name: "landlock", state: gaps.isEmpty ? .good : .missing,
            detail: "version \(version)"
                + (gaps.isEmpty ? "" : ", which does not confine: " + gaps.joined(separator: ", ")))
    }

    private static func filters() -> HostCheck {
        let isThere = SystemCallFilter.isThere
        return HostCheck(
            name: "seccomp", state: isThere ? .good : .missing,
            detail: isThere
                ? "filters of system calls"
                : "no filters of system calls: a monitor starts with --seccomp false alone")
    }

    private static func namespaces() -> HostCheck {
        do throws(HostError) {
            try Namespaces.tryUsers()
            return HostCheck(name: "user namespaces", state: .good, detail: "may be made")
        } catch {
            let reason = namespaceSetting() ?? error.reason
            return HostCheck(
                name: "user namespaces", state: .missing,
                detail: "\(reason): jails are for root alone")
        }
    }

    /// What forbids them, as far as a setting tells.
    private static func namespaceSetting() -> String? {
        let limit = text("/proc/sys/user/max_user_namespaces").flatMap { Int($0) } ?? 0
        let isForbidden = text("/proc/sys/kernel/unprivileged_userns_clone") == "0"
        let isRestricted = text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
        if limit == 0 { return "none are allowed (user.max_user_namespaces)" }
        if isForbidden { return "not for users (kernel.unprivileged_userns_clone)" }
        return isRestricted ? "only for programs with an AppArmor profile" : nil
    }

    private static func cgroup() -> HostCheck {
        let mount = "/sys/fs/cgroup"
        let controllers = text("\(mount)/cgroup.controllers")
        // Each controller of version 1 has a mount of its own.
        let old = ["memory", "cpu", "pids"].map { "\(mount)/\($0)" }.first(where: exists)
        guard let folder = controllers == nil ? old : mount else {
            return HostCheck(name: "cgroup", state: .missing, detail: "not mounted at \(mount)")
        }
        let mayMake = FileTree.isWritable(folder)
        return HostCheck(
            name: "cgroup", state: mayMake ? .good : .missing,
            detail: (controllers.map { "version 2: \($0)" } ?? "version 1")
                + (mayMake ? "" : "; groups are not this user's to make"))
    }

    private static func hugePages() -> HostCheck {
        let setting = text("/sys/kernel/mm/transparent_hugepage/enabled") ?? "[never]"
        let reserved = text("/proc/sys/vm/nr_hugepages").flatMap { Int($0) } ?? 0
        let isOn = !setting.contains("[never]")
        return HostCheck(
            name: "huge pages", state: isOn ? .good : .missing,
            detail: (isOn
                ? "transparent: \(setting)"
                : "not transparent: a guest's memory is mapped in pages of 4 KiB, which is slow")
                + "; \(reserved) reserved")
    }

    private static func rings() -> HostCheck {
        do throws(HostError) {
            _ = try IORing(depth: 1)
            return HostCheck(name: "io_uring", state: .good, detail: "allowed")
        } catch {
            return HostCheck(
                name: "io_uring", state: .missing,
                detail: "refused (\(error.reason)): disks use Linux AIO")
        }
    }

    private static func taps() -> HostCheck {
        do throws(HostError) {
            _ = try FileDescriptor.open("/dev/net/tun", [.readWrite, .nonBlocking])
        } catch {
            return HostCheck(
                name: "taps", state: .missing,
                detail: "/dev/net/tun: \(error.reason); --net backend=user does without")
        }
        let line = text("/proc/self/status")?.split(separator: "\n")
            .first { $0.hasPrefix("CapEff:") }
        let word = line?.split(whereSeparator: \.isWhitespace).last ?? ""
        let capabilities = UInt64(word, radix: 16) ?? 0
        let mayMake = Capabilities(rawValue: capabilities).contains(.networkAdministration)
        return HostCheck(
            name: "taps", state: mayMake ? .good : .missing,
            detail: mayMake
                ? "may be made"
                : "only those that are yours: to make one needs CAP_NET_ADMIN;"
                    + " --net backend=user does without")
    }

    private static func passt() -> HostCheck {
        let path = ChildProcess.find("passt")
        return HostCheck(
            name: "passt", state: path == nil ? .missing : .good,
            detail: path ?? "not installed: no --net backend=user")
    }
}

extension String {
    /// Without white space at either end.
    fileprivate func trimmingCharacters() -> String {
        let tail = drop { $0.isWhitespace }
        return String(tail.prefix(tail.count - tail.reversed().prefix { $0.isWhitespace }.count))
    }
}
