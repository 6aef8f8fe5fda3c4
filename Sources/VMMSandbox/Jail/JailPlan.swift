import VMMBase
import VMMHost

/// A jail as it was asked for: a root of its own, namespaces, a user, limits, and the program that
/// runs there.
package struct JailPlan: Sendable {
    /// Where the jail's files are.
    package enum Root: Equatable, Sendable {
        /// In `<base>/<program>/<id>/root` on the host, which stays, and which the host may furnish
        /// before and look into later.
        case folder(base: String)
        /// In memory, gone with the last process in it, and not to be written.
        case memory
    }

    package enum Network: Equatable, Sendable {
        case host
        /// One of its own, with nothing in it.
        case own
        /// The one that this file stands for.
        case named(String)
    }

    /// A file or folder of the host that is there in the jail, under the same name.
    package struct Exposure: Equatable, Sendable {
        package let path: String
        package let isWritable: Bool

        package init(_ path: String, isWritable: Bool) {
            self.path = path
            self.isWritable = isWritable
        }

        /// `/dev/vfio/12` or `/images/root.raw,access=rw`.
        package init?(_ text: String) {
            let parts = text.split(separator: ",", maxSplits: 1)
            guard let path = parts.first, path.hasPrefix("/") else { return nil }
            switch parts.dropFirst().first {
            case nil, "access=r": self.init(String(path), isWritable: false)
            case "access=rw": self.init(String(path), isWritable: true)
            default: return nil
            }
        }
    }

    package let id: String
    /// The program's canonical path.
    package let executable: String
    package var arguments: [String] = []
    package var user: UInt32
    package var group: UInt32
    package var root: Root
    /// By a namespace of users, which nobody needs a right for.
    package var isRootless = false
    package var network = Network.host
    package var hasOwnProcesses = false
    /// The command ends when the program runs, which then belongs to nobody.
    package var isDaemon = false
    /// The command stays, hands on signals, and ends with the program's status.
    package var waits = false
    package var groups: ControlGroups?
    /// Of root's, those that the program may have; nil: all that its user has.
    package var capabilities: Capabilities?
    package var limits: [(limit: SoleThread.Limit, value: UInt64)] = []
    package var exposures: [Exposure] = []
    /// Descriptors that the program gets, besides the standard streams.
    package var descriptors: [Int32] = []
    /// Devices of the host that it gets, where there are such.
    package var devices = ["/dev/kvm", "/dev/net/tun", "/dev/urandom", "/dev/userfaultfd"]
    /// Where the program starts; a folder that is made unless the jail has it.
    package var workingFolder = "/"

    /// 64 letters, digits and dashes at most, as Firecracker has it: the name becomes a folder's.
    package init(
        id: String, executable: String, user: UInt32, group: UInt32, root: Root
    ) throws(ConfigurationProblem) {
        let isPlain = id.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }
        guard isPlain, (1...64).contains(id.utf8.count) else {
            throw ConfigurationProblem(
                option: "--id", value: id, reason: "expected 1 to 64 letters, digits and dashes")
        }
        self.id = id
        self.user = user
        self.group = group
        do throws(HostError) {
            let path = try FileTree.canonical(executable)
            guard FileTree.kind(path) == .regular else {
                throw HostError("use", path, code: HostError.ioCode)
            }
            self.executable = path
        } catch {
            throw ConfigurationProblem(
                option: "--exec-file", value: executable,
                reason: error.code == HostError.ioCode ? "is no regular file" : error.reason)
        }
        switch root {
        case .memory: self.root = .memory
        case .folder(let base):
            do throws(HostError) {
                self.root = .folder(base: try FileTree.canonical(base))
            } catch {
                throw ConfigurationProblem(
                    option: "--chroot-base-dir", value: base, reason: error.reason)
            }
        }
    }

    /// The program's name, which is its file's in the jail.
    package var program: String {
        executable.split(separator: "/").last.map(String.init) ?? executable
    }

    /// Where the jail's root is on the host; nil in memory.
    package var folder: String? {
        guard case .folder(let base) = root else { return nil }
        return "\(base == "/" ? "" : base)/\(program)/\(id)/root"
    }

    /// `fsize=N` or `no-file=N`.
    package static func limit(
        _ text: String
    ) throws(ConfigurationProblem) -> (limit: SoleThread.Limit, value: UInt64) {
        let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
        guard parts.count == 2, let limit = SoleThread.Limit(rawValue: parts[0]),
            let value = UInt64(parts[1])
        else {
            throw ConfigurationProblem(
                option: "--resource-limit", value: text,
                reason: "expected fsize=<bytes> or no-file=<number>")
        }
        return (limit, value)
    }
}
