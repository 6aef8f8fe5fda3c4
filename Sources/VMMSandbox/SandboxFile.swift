import VMMHost

/// A file, or a folder with all below it, that is still reached by its path when the process is
/// confined.
package struct SandboxFile: Equatable, Sendable {
    package let path: String
    package let access: LandlockRules.Access

    package init(_ path: String, _ access: LandlockRules.Access) {
        self.path = path
        self.access = access
    }

    /// A disk image or block device, or a part of one.
    package static func image(_ path: String, isReadOnly: Bool) -> SandboxFile {
        SandboxFile(path, isReadOnly ? [.read, .control] : [.read, .write, .control])
    }

    /// The folder of a socket that is made, and goes with whoever made it.
    package static func socket(_ path: String) -> SandboxFile {
        SandboxFile(folder(of: path), [.makeSocket, .removeFile])
    }

    /// The folder of a file that is made and written, and taken away if it cannot be finished.
    package static func made(_ path: String) -> SandboxFile {
        SandboxFile(folder(of: path), [.makeFile, .write, .removeFile])
    }

    private static func folder(of path: String) -> String {
        let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : path[..<$0] }
        return folder.map { String($0) } ?? "."
    }

    /// Whether `other` is this file, or below this folder, by the names alone.
    package func covers(_ other: SandboxFile) -> Bool {
        guard access.isSuperset(of: other.access) else { return false }
        let folder = path.hasSuffix("/") ? path : path + "/"
        return other.path == path || other.path.hasPrefix(folder)
    }
}
