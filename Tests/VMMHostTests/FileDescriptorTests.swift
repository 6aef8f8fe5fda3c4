import Foundation
import Glibc
import Testing
import VMMHost
import VMMTestSupport

@Suite("FileDescriptor")
struct FileDescriptorTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("file")
        try Data([1, 2, 3, 4, 5]).write(to: URL(filePath: path))
    }

    @Test("a file that is not there is an error that names it")
    func missing() {
        let error = #expect(throws: HostError.self) {
            try FileDescriptor.open(directory.file("missing"), .readOnly)
        }
        #expect(error?.code == ENOENT)
        #expect(error?.description.hasPrefix("cannot open '\(directory.file("missing"))'") == true)
    }

    @Test("a read appends what there is, then says that the file ends")
    func reads() throws {
        let file = try FileDescriptor.open(path, .readOnly)
        var bytes: [UInt8] = [9]
        let transfers = [
            file.read(into: &bytes, limit: 2), file.read(into: &bytes, limit: 100),
            file.read(into: &bytes, limit: 100),
        ]
        #expect(transfers == [.moved(2), .moved(3), .endOfFile])
        #expect(bytes == [9, 1, 2, 3, 4, 5])
    }

    @Test("exactly so many bytes are read at an offset, or none")
    func readsAt() throws {
        let file = try FileDescriptor.open(path, .readOnly)
        #expect(try file.read(at: 1, count: 3) == [2, 3, 4])
        #expect(try file.read(at: 5, count: 0) == [])
        #expect(throws: HostError.self) { try file.read(at: 3, count: 3) }
        #expect(throws: HostError.self) { try file.read(at: .max, count: 1) }
    }

    @Test("writes go on from an offset; a descriptor for reading takes none")
    func writes() throws {
        let file = try FileDescriptor.open(path, [.writeOnly, .truncate])
        #expect(file.write([7, 8, 9], from: 1) == .moved(2))
        #expect(file.write([7], from: 1) == .moved(0))
        file.writeAll("ab")
        let reader = try FileDescriptor.open(path, .readOnly)
        #expect(try reader.read(at: 0, count: 4) == [8, 9, 97, 98])
        #expect(reader.write([1]) == .failed(EBADF))
    }

    @Test("a non-blocking descriptor without data would block")
    func wouldBlock() throws {
        let event = try EventFD()
        var bytes: [UInt8] = []
        #expect(event.descriptor.read(into: &bytes, limit: 8) == .wouldBlock)
        #expect(bytes.isEmpty)
        event.signal()
        event.signal()
        #expect(event.clear())
        #expect(!event.clear())
    }

    @Test("metadata tells files, directories and devices apart")
    func metadata() throws {
        let file = try FileDescriptor.open(path, .readOnly).metadata()
        let folder = try FileDescriptor.open(directory.path, .readOnly).metadata()
        let device = try FileDescriptor.open("/dev/null", .readOnly).metadata()
        #expect(file.kind == .regular && file.byteCount == 5)
        #expect(folder.kind == .directory)
        #expect(device.kind == .characterDevice && device.rawDevice != 0)
        #expect(file.inode != folder.inode)
    }

    @Test(
        "an exclusive lock keeps everybody out, a shared one writers only",
        arguments: [
            (true, true, false), (true, false, false), (false, true, false),
            (false, false, true),
        ])
    func locks(first: Bool, second: Bool, expected: Bool) throws {
        let holder = try FileDescriptor.open(path, .readWrite)
        let other = try FileDescriptor.open(path, .readWrite)
        #expect(try holder.lock(exclusive: first))
        #expect(try other.lock(exclusive: second) == expected)
    }

    @Test("a lock ends with its last descriptor")
    func lockEnds() throws {
        var holder: FileDescriptor? = try FileDescriptor.open(path, .readWrite)
        var duplicate = try holder?.duplicate()
        let other = try FileDescriptor.open(path, .readWrite)
        #expect(try holder?.lock(exclusive: true) == true)
        holder = nil
        let isStillHeld = try !other.lock(exclusive: true)
        duplicate = nil
        #expect(isStillHeld && duplicate == nil)
        #expect(try other.lock(exclusive: true))
    }

    @Test("zeros are written over a range, longer than one piece")
    func writeZeros() throws {
        // More than the 64 KiB that are written at once.
        let count = 100_000
        try Data(repeating: 0xff, count: count).write(to: URL(filePath: path))
        let file = try FileDescriptor.open(path, .readWrite)
        try file.writeZeros(offset: 1, count: UInt64(count - 2))
        let bytes = try file.read(at: 0, count: count)
        #expect(bytes.first == 0xff && bytes.last == 0xff)
        #expect(bytes.dropFirst().dropLast().allSatisfy { $0 == 0 })
    }

    @Test("an error names what was tried, on what, and why")
    func errorText() {
        let error = HostError("open", "/a", code: EACCES)
        #expect(error.description == "cannot open '/a': Permission denied")
        #expect(error.isPermission)
        #expect(!HostError("open", code: ENOENT).isPermission)
    }
}
