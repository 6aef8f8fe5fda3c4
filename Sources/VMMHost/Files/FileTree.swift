import CVMMLinux
import Glibc

/// Files and folders by their names: what a jail is furnished with.
package enum FileTree {
    /// Makes the folder and those above it that are missing.
    package static func makeFolders(_ path: String, mode: UInt32 = 0o755) throws(HostError) {
        var place = path.hasPrefix("/") ? "" : "."
        for part in path.split(separator: "/") {
            place += "/" + part
            // SAFETY: the kernel reads the names here up to their ends.
            guard unsafe mkdir(place, mode) == 0 || errno == EEXIST else {
                throw .last("make the folder", place)
            }
        }
    }

    /// What the name stands for, behind links; nil where nothing has it or can be seen to.
    package static func kind(_ path: String) -> FileDescriptor.Kind? {
        try? FileDescriptor.named(path).kind()
    }

    /// Whether the process may write there, as far as rights tell.
    package static func isWritable(_ path: String) -> Bool {
        // SAFETY: the kernel reads the name up to its end.
        unsafe access(path, W_OK) == 0
    }

    /// The name without links and dots; of something that is there.
    package static func canonical(_ path: String) throws(HostError) -> String {
        // SAFETY: realpath returns a text of its own, which is copied and freed, or null.
        guard let resolved = unsafe realpath(path, nil) else { throw .last("find", path) }
        defer { unsafe free(resolved) }
        return unsafe String(cString: resolved)
    }

    /// Copies a file's bytes. What has the name must be a file of one name, and no link: a jail may
    /// be furnished by others, and what they link to is not ours to write.
    package static func copy(
        _ source: String, to path: String, mode: UInt32, user: UInt32, group: UInt32
    ) throws(HostError) {
        let input = try FileDescriptor.open(source, .readOnly)
        let raw = unsafe vmm_open(
            path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode)
        guard raw >= 0 else { throw .last("open", path) }
        let output = FileDescriptor(owning: raw)
        var status = stat()
        guard unsafe fstat(raw, &status) == 0 else { throw .last("examine", path) }
        guard status.st_mode & S_IFMT == S_IFREG, status.st_nlink == 1 else {
            throw HostError("overwrite what has another name, too,", path, code: EMLINK)
        }
        try output.resize(to: 0)
        let byteCount = try input.metadata().byteCount
        var copied: UInt64 = 0
        while copied < byteCount {
            let moved = sendfile(raw, input.rawValue, nil, Int(byteCount - copied))
            guard moved > 0 else { throw .last("copy", source) }
            copied += UInt64(moved)
        }
        // By the descriptor: the name may be another file's by now.
        guard fchmod(raw, mode) == 0, fchown(raw, user, group) == 0 else {
            throw .last("give away", path)
        }
    }

    /// All of a small file, such as the kernel's own.
    package static func text(_ path: String) throws(HostError) -> String {
        let file = try FileDescriptor.open(path, .readOnly)
        var bytes: [UInt8] = []
        while true {
            switch file.read(into: &bytes, limit: 4096) {
            case .moved: continue
            case .endOfFile: return String(decoding: bytes, as: UTF8.self)
            case .failed(let code): throw HostError("read", path, code: code)
            case .wouldBlock: throw HostError("read", path, code: EAGAIN)
            }
        }
    }
}

extension FileDescriptor {
    /// The file itself, open for its name alone (O_PATH).
    static func named(_ path: String) throws(HostError) -> FileDescriptor {
        let raw = unsafe vmm_open(path, 0o10000000 | O_CLOEXEC, 0)
        guard raw >= 0 else { throw .last("find", path) }
        return FileDescriptor(owning: raw)
    }
}
