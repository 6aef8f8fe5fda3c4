import Foundation

/// A file system of the host's own for images, on a loop device; gone with this.
final class HostDisk {
    enum Kind {
        /// ext4 on blocks of 4096 bytes: direct I/O has to be aligned to that.
        case ext4
        /// In memory.
        case tmpfs
    }

    let path: String
    private let loop: String?

    init(_ kind: Kind, mebibytes: Int, in scratch: Scratch) throws {
        path = scratch("host-\(UInt32.random(in: 0...UInt32.max))")
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false)
        switch kind {
        case .tmpfs:
            loop = nil
            try HostCommand.run("mount", "-t", "tmpfs", "-o", "size=\(mebibytes)M", "none", path)
        case .ext4:
            let file = try scratch.sparseFile("host.ext4", bytes: mebibytes << 20)
            let device = try HostCommand.run("losetup", "--show", "-b", "4096", "-f", file)
                .trimmingCharacters(in: .whitespacesAndNewlines)
            loop = device
            try HostCommand.run("mke2fs", "-q", "-F", "-t", "ext4", device)
            try HostCommand.run("mount", device, path)
        }
    }

    deinit {
        _ = try? HostCommand(["umount", "-l", path])
        if let loop { _ = try? HostCommand(["losetup", "-d", loop]) }
    }

    func callAsFunction(_ name: String) -> String { path + "/" + name }

    /// Gives a file system in memory another size.
    func resize(mebibytes: Int) throws {
        try HostCommand.run("mount", "-o", "remount,size=\(mebibytes)M", path)
    }
}
