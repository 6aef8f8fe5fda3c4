import Foundation

/// A cpio archive in the format `newc`, which Linux unpacks over the one before it.
struct Archive {
    private(set) var bytes: [UInt8] = []
    private var nextInode = 1

    /// Adds an executable file of root.
    mutating func add(_ path: String, _ content: String) {
        add(path, [UInt8](content.utf8))
    }

    /// As above, with any content.
    mutating func add(_ path: String, _ content: [UInt8]) {
        add(path, content, mode: 0o100755)
    }

    private mutating func add(_ path: String, _ content: [UInt8], mode: Int) {
        let name = [UInt8](path.utf8) + [0]
        let fields = [
            nextInode, mode, 0, 0, 1, 0, content.count, 0, 0, 0, 0, name.count, 0,
        ]
        nextInode += 1
        bytes += [UInt8]("070701".utf8)
        for field in fields { bytes += [UInt8](String(format: "%08x", field).utf8) }
        bytes += name
        pad(to: 4)
        bytes += content
        pad(to: 4)
    }

    /// Ends the archive.
    mutating func finish() {
        add("TRAILER!!!", [], mode: 0)
        pad(to: 512)
    }

    private mutating func pad(to boundary: Int) {
        while !bytes.count.isMultiple(of: boundary) { bytes.append(0) }
    }
}
