import Foundation
import Testing
import VMMHost
import VMMStorage
import VMMTestSupport

@Suite("HostFile")
struct HostFileTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk")
        try Data(count: 2 * 512 + 100).write(to: URL(filePath: path))
    }

    /// The sentence that a user reads; empty when the disk opens.
    private func refusal(_ path: String, isReadOnly: Bool = false) -> String {
        do throws(ImageError) {
            _ = try RawImage(HostFile(path: path, isReadOnly: isReadOnly))
            return ""
        } catch {
            return error.description
        }
    }

    @Test("a file is a disk of its whole sectors")
    func opens() throws {
        let file = try HostFile(path: path, isReadOnly: false)
        #expect(try RawImage(file).byteCount == 1024)
        #expect(file.logicalBlockSize == 512 && file.physicalBlockSize == 512)
        #expect(!file.isBlockDevice && !file.isReadOnly)
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

    @Test("where a file is wanted and nothing else, a link to one is none")
    func plain() throws {
        let link = directory.file("link")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path)
        #expect(refusal(link) == "")
        #expect(throws: ImageError.self) {
            try HostFile(path: link, isReadOnly: true, isPlain: true)
        }
        #expect(try HostFile(path: path, isReadOnly: true, isPlain: true).isReadOnly)
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
        let holder = try HostFile(path: path, isReadOnly: first)
        let text = refusal(path, isReadOnly: second)
        #expect(holder.path == path)
        #expect(text.isEmpty == opens)
        #expect(opens || text.hasPrefix("is used by somebody else"))
    }
}
