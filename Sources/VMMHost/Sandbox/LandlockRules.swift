import CVMMLinux
import Glibc

/// Which files a thread may still reach by their paths (landlock(7)). Files that are open stay as
/// they are. No TCP port can be bound or connected to, and no abstract socket of others, where the
/// kernel knows how to forbid it.
package final class LandlockRules: Sendable {
    /// What may be done with a file, or with all that is below a folder.
    package struct Access: OptionSet, Sendable {
        package let rawValue: UInt64
        package init(rawValue: UInt64) { self.rawValue = rawValue }

        /// Opened for reading, and examined.
        package static let read = Access(rawValue: 1 << 2)
        /// Opened for writing, and its size set.
        package static let write = Access(rawValue: 1 << 1 | 1 << 14)
        /// A folder is listed.
        package static let list = Access(rawValue: 1 << 3)
        /// Files are made in a folder, or removed.
        package static let makeFile = Access(rawValue: 1 << 8)
        package static let makeSocket = Access(rawValue: 1 << 9)
        package static let removeFile = Access(rawValue: 1 << 5)
        /// A device's own requests (ioctl).
        package static let control = Access(rawValue: 1 << 15)
    }

    /// What a kernel of a version lacks of what is forbidden here; the version that has it.
    private static let gaps: [(version: Int, what: String)] = [
        (3, "the size of files"), (4, "TCP"), (5, "requests to devices"),
        (6, "abstract sockets"),
    ]

    /// The kernel's version of landlock; 0 without it.
    package static var version: Int {
        // LANDLOCK_CREATE_RULESET_VERSION.
        Int(max(0, vmm_landlock_create(nil, 0, 1)))
    }

    /// What the kernel of this version does not forbid; empty where it forbids all.
    package static func gaps(version: Int) -> [String] {
        gaps.filter { $0.version > version }.map(\.what)
    }

    private let descriptor: FileDescriptor
    /// What is forbidden unless a rule allows it.
    private let handled: UInt64

    /// Rules that allow nothing yet. `version` is the kernel's, at least 1.
    package init(version: Int) throws(HostError) {
        // The first version knows 13 things that can be done with files (linux/landlock.h).
        let known = [0, 13, 14, 15, 15, 16][min(version, 5)]
        handled = (1 << known) - 1
        // TCP's bind and connect; the scope of abstract sockets.
        var rules = vmm_landlock(
            files: handled, network: version >= 4 ? 3 : 0, scopes: version >= 6 ? 1 : 0)
        let size = version >= 6 ? 24 : version >= 4 ? 16 : 8
        // SAFETY: the kernel reads `size` bytes, at most the struct's.
        let raw = unsafe vmm_landlock_create(&rules, size, 0)
        guard raw >= 0 else { throw .last("make landlock rules") }
        descriptor = FileDescriptor(owning: raw)
    }

    /// Allows `access` to a file, or to what is below a folder. False where there is none.
    @discardableResult
    package func allow(_ path: String, _ access: Access) throws(HostError) -> Bool {
        do throws(HostError) {
            // O_PATH: neither a device nor a FIFO notices.
            let file = try FileDescriptor.open(
                path, FileDescriptor.OpenOptions(rawValue: 0o10000000))
            try allow(file, access)
            return true
        } catch {
            if error.isAbsence { return false }
            throw error
        }
    }

    /// As above, for an open file.
    package func allow(_ file: FileDescriptor, _ access: Access) throws(HostError) {
        var allowed = access.rawValue & handled
        // The kernel refuses what cannot be done with a file that is no folder.
        if try file.kind() != .directory { allowed &= Self.ofFiles }
        guard allowed != 0 else { return }
        guard vmm_landlock_allow(descriptor.rawValue, file.rawValue, allowed) == 0 else {
            throw .last("make a landlock rule")
        }
    }

    private static let ofFiles = Access([.read, .write, .control]).rawValue | 1

    /// Holds the calling thread to the rules, and threads that it starts. The thread has given up
    /// new privileges.
    func restrictThread() throws(HostError) {
        guard vmm_landlock_restrict(descriptor.rawValue) == 0 else {
            throw .last("follow landlock rules")
        }
    }
}
