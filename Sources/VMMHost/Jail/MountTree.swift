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

    /// A file or folder, with what is mounted below it, that can be shown in another place.
    package struct View {
        private let mount: FileDescriptor
        private let source: String

        /// Links in the path are followed now, and never again.
        package init(of path: String) throws(HostError) {
            source = path
            let raw = unsafe vmm_copy_mount(path)
            guard raw >= 0 else { throw .last("show in the jail", path) }
            mount = FileDescriptor(owning: raw)
        }

        /// Forbids this, too, besides what is forbidden at the source.
        package func limit(_ limits: Limits) throws(HostError) {
            guard vmm_limit_mount(mount.rawValue, limits.rawValue) == 0 else {
                throw .last("limit in the jail", source)
            }
        }

        /// What it shows.
        package func kind() throws(HostError) -> FileDescriptor.Kind { try mount.kind() }

        /// Shows it over `target`, which is of the same kind: a folder, or none.
        package func show(at target: FileDescriptor) throws(HostError) {
            guard vmm_place_mount(mount.rawValue, target.rawValue) == 0 else {
                throw .last("show in the jail", source)
            }
        }
    }

    /// Makes a folder a mount, with what is mounted below it.
    package static func makeMount(of folder: String) throws(HostError) {
        guard unsafe vmm_mount(folder, folder, nil, bound | below, nil) == 0 else {
            throw .last("mount", folder)
        }
        // In a namespace of users what the folder's file system forbids must stay forbidden.
        var status = statvfs()
        guard unsafe statvfs(folder, &status) == 0 else { throw .last("examine", folder) }
        let limits = Limits(rawValue: status.f_flag & 15).union(.noOtherUser)
        guard unsafe vmm_mount(nil, folder, nil, bound | changed | limits.rawValue, nil) == 0 else {
            throw .last("limit", folder)
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

    /// Makes the mount at `path` the root; nothing of the old one can be named any more.
    package static func enter(_ path: String) throws(HostError) {
        try go(to: path)
        // The old root is put over the new one, and taken from there: no folder is needed for it.
        // Until it is, the new root's own ".." leads to it.
        guard unsafe vmm_pivot_root(".", ".") == 0 else { throw .last("change the root to", path) }
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
