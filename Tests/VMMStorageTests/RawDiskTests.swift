import Foundation
import Testing
import VMMHost
import VMMStorage

@Suite("RawDisk")
struct RawDiskTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk")
        try Data(count: 2 * 512 + 100).write(to: URL(filePath: path))
    }

    /// The sentence that a user reads; empty when the disk opens.
    private func refusal(_ path: String, isReadOnly: Bool = false) -> String {
        do throws(RawDisk.OpenError) {
            _ = try RawDisk(path: path, isReadOnly: isReadOnly)
            return ""
        } catch {
            return error.description
        }
    }

    @Test("a file is a disk of its whole sectors")
    func opens() throws {
        let disk = try RawDisk(path: path, isReadOnly: false)
        #expect(disk.sectorCount == 2)
        #expect(disk.logicalBlockSize == 512 && disk.physicalBlockSize == 512)
        #expect(!disk.isBlockDevice && !disk.isReadOnly)
    }

    @Test("the default serial number is the same each time and has at most 20 bytes")
    func serial() throws {
        let first = try RawDisk(path: path, isReadOnly: true).defaultSerial
        let second = try RawDisk(path: path, isReadOnly: true).defaultSerial
        #expect(first == second)
        #expect((1...20).contains(first.utf8.count))
    }

    @Test("what is no disk is refused in a sentence", arguments: [false, true])
    func refuses(isReadOnly: Bool) throws {
        let small = directory.file("small")
        try Data(count: 511).write(to: URL(filePath: small))
        #expect(
            refusal(directory.file("missing"), isReadOnly: isReadOnly)
                == "No such file or directory")
        #expect(
            refusal(directory.path, isReadOnly: isReadOnly)
                == "is a directory; a file or a block device is needed")
        #expect(
            refusal(small, isReadOnly: isReadOnly) == "holds less than one sector of 512 bytes")
        #expect(
            refusal("/dev/null", isReadOnly: isReadOnly)
                == "is neither a file nor a block device")
    }

    @Test("a FIFO is refused without waiting for its other end", arguments: [false, true])
    func fifo(isReadOnly: Bool) {
        let fifo = directory.file("fifo")
        #expect(mkfifo(fifo, 0o600) == 0)
        #expect(
            refusal(fifo, isReadOnly: isReadOnly) == "is neither a file nor a block device")
    }

    @Test(
        "a disk that is written is nobody else's; readers share",
        arguments: [
            (false, false, false), (false, true, false), (true, false, false),
            (true, true, true),
        ])
    func locks(first: Bool, second: Bool, opens: Bool) throws {
        let holder = try RawDisk(path: path, isReadOnly: first)
        let text = refusal(path, isReadOnly: second)
        #expect(holder.sectorCount == 2)
        #expect(text.isEmpty == opens)
        #expect(opens || text.hasPrefix("is used by somebody else"))
    }

    @Test("an engine without io_uring has nothing to wait for")
    func engine() throws {
        let disk = try RawDisk(path: path, isReadOnly: true)
        #expect(disk.makeEngine(depth: 4, allowsRing: false).completionSource == nil)
    }
}
