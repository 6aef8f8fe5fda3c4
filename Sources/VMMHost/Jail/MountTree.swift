import CVMMLinux
import Glibc

/// What is mounted where, for a process that has a namespace of mounts for its own.
package enum MountTree {
    /// What a mount forbids; mount(2).
    package struct Limits: OptionSet, Sendable {
        package let rawValue: UInt
        package init(rawValue: UInt) { self.rawValue = rawValue }

        package static let noWriting = Limits(rawValue: 1)
        package static let noOtherUser = Limits(rawValue: 2)
        package static let noDevices = Limits(rawValue: 4)
        package static let noPrograms = Limits(rawValue: 8)
    }

    private static let changed: UInt = 32  // MS_REMOUNT
    private static let bound: UInt = 4096  // MS_BIND
    private static let below: UInt = 16384  // MS_REC
    private static let follower: UInt = 1 << 19  // MS_SLAVE

    /// Keeps what is mounted from now on from the host, while what the host mounts still comes.
    package static func detach() throws(HostError) {
        guard unsafe vmm_mount("none", "/", nil, follower | below, nil) == 0 else {
            throw .last("keep mounts from the host")
        }
    }

    /// Shows a file or folder in another place, too.
    package static func bind(
        _ source: String, at target: String, _ limits: Limits
    ) throws(HostError) {
        guard unsafe vmm_mount(source, target, nil, bound, nil) == 0 else {
            throw .last("show in the jail", source)
        }
        // Limits are only set on what is mounted already; in a namespace of users those that the
        // source has must stay.
        var status = statvfs()
        guard unsafe statvfs(target, &status) == 0 else { throw .last("examine", target) }
        let present = Limits(rawValue: status.f_flag & 15)
        let flags = present.union(limits).rawValue
        guard unsafe vmm_mount(nil, target, nil, bound | changed | flags, nil) == 0 else {
            throw .last("limit in the jail", source)
        }
    }

    /// Mounts an empty file system in memory, of at most so many bytes.
    package static func mountMemory(at target: String, byteCount: Int) throws(HostError) {
        let limits: Limits = [.noOtherUser]
        let options = "mode=0700,size=\(byteCount)"
        guard unsafe vmm_mount("swiftlet", target, "tmpfs", limits.rawValue, options) == 0 else {
            throw .last("mount memory at", target)
        }
    }

    /// Nothing is written to the file system of this mount any more, through this mount.
    package static func forbidWriting(at target: String) throws(HostError) {
        let flags = bound | changed | Limits([.noWriting, .noOtherUser]).rawValue
        guard unsafe vmm_mount(nil, target, nil, flags, nil) == 0 else {
            throw .last("forbid writing to", target)
        }
    }

    /// Makes the mount at `path` the root. Until `leaveHost`, names without a leading slash begin
    /// at the old one.
    package static func enter(_ path: String) throws(HostError) {
        let host = try FileDescriptor.named("/")
        try go(to: path)
        // The old root is put over the new one, and taken from there: no folder is needed for it.
        guard unsafe vmm_pivot_root(".", ".") == 0 else { throw .last("change the root to", path) }
        guard fchdir(host.rawValue) == 0 else { throw .last("go into", "/") }
    }

    /// Gives up what is left of the old root.
    package static func leaveHost() throws(HostError) {
        try go(to: "/")
        guard unsafe vmm_unmount_lazily(".") == 0 else { throw .last("leave the host's files") }
        try go(to: "/")
    }

    /// Has names without a leading slash begin there.
    package static func go(to folder: String) throws(HostError) {
        // SAFETY: the kernel reads the name up to its end.
        guard unsafe chdir(folder) == 0 else { throw .last("go into", folder) }
    }

    /// Where such names begin now.
    package static var workingFolder: String {
        // SAFETY: getcwd makes a text, which is copied and freed.
        guard let text = unsafe getcwd(nil, 0) else { return "/" }
        defer { unsafe free(text) }
        return unsafe String(cString: text)
    }
}
