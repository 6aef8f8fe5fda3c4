import CVMMLinux
import Glibc

/// A name in a root that somebody else may have furnished, and the folder that it is in. What is
/// done here is done to that and to nothing that a link leads to.
package struct Place {
    private let folder: FileDescriptor
    private let name: String
    private let path: String
    private let followsLinks: Bool

    /// The folders that lead to it are made, if they are missing. Where `followsLinks`, those
    /// before the name may be links.
    package init(_ path: String, followsLinks: Bool) throws(HostError) {
        self.path = path
        self.followsLinks = followsLinks
        var parts = path.split(separator: "/").map(String.init)
        name = parts.popLast() ?? "."
        var folder = try FileDescriptor.named("/")
        for part in parts {
            folder = try Self.makeFolder(part, in: folder, path, followsLinks: followsLinks)
        }
        self.folder = folder
    }

    /// Makes the folder, unless it is there; open for its name alone.
    @discardableResult
    package func makeFolder() throws(HostError) -> FileDescriptor {
        try Self.makeFolder(name, in: folder, path, followsLinks: followsLinks)
    }

    private static func makeFolder(
        _ name: String, in folder: FileDescriptor, _ path: String, followsLinks: Bool
    ) throws(HostError) -> FileDescriptor {
        // SAFETY: the kernel reads the names here up to their ends.
        guard unsafe mkdirat(folder.rawValue, name, 0o755) == 0 || errno == EEXIST else {
            throw .last("make the folder", path)
        }
        let flags = byName | O_DIRECTORY | (followsLinks ? 0 : O_NOFOLLOW)
        let raw = unsafe vmm_open_at(folder.rawValue, name, flags, 0)
        guard raw >= 0 else { throw .last("make the folder", path) }
        return FileDescriptor(owning: raw)
    }

    /// Makes an empty file, unless something is there; open for its name alone, so that a device
    /// or a FIFO does not notice.
    package func makeFile() throws(HostError) -> FileDescriptor {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC
        let made = unsafe vmm_open_at(folder.rawValue, name, flags, 0o600)
        guard made < 0 else { return FileDescriptor(owning: made) }
        guard errno == EEXIST else { throw .last("make the file", path) }
        let there = try opened()
        guard try there.kind() != .symbolicLink else {
            throw HostError("make the file", path, code: EEXIST)
        }
        return there
    }

    /// Makes the node of a character device, and gives it away; one that is there already must be
    /// that.
    package func makeDevice(
        major: UInt32, minor: UInt32, user: UInt32, group: UInt32
    ) throws(HostError) {
        let made = unsafe vmm_make_character_device(folder.rawValue, name, 0o600, major, minor)
        guard made == 0 || errno == EEXIST else { throw .last("make the device", path) }
        let there = try opened()
        let metadata = try there.metadata()
        guard metadata.kind == .characterDevice,
            metadata.rawDevice == UInt64(gnu_dev_makedev(major, minor))
        else { throw HostError("make the device", path, code: EEXIST) }
        // What was looked at: by now the name may be something else's.
        guard unsafe fchownat(there.rawValue, "", user, group, Self.emptyPath) == 0 else {
            throw .last("give away", path)
        }
    }

    /// Makes the folder, and gives it away.
    package func makeFolder(mode: UInt32, user: UInt32, group: UInt32) throws(HostError) {
        let named = try makeFolder()
        let raw = unsafe vmm_open_at(
            named.rawValue, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        guard raw >= 0 else { throw .last("open", path) }
        let own = FileDescriptor(owning: raw)
        guard fchmod(own.rawValue, mode) == 0, fchown(own.rawValue, user, group) == 0 else {
            throw .last("give away", path)
        }
    }

    private static let byName: Int32 = 0o10000000 | O_CLOEXEC  // O_PATH
    private static let emptyPath: Int32 = 0x1000  // AT_EMPTY_PATH

    private func opened() throws(HostError) -> FileDescriptor {
        let raw = unsafe vmm_open_at(folder.rawValue, name, Self.byName | O_NOFOLLOW, 0)
        guard raw >= 0 else { throw .last("find", path) }
        return FileDescriptor(owning: raw)
    }
}
