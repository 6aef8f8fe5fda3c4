import Foundation
import Testing
import VMMHost
import VMMStorage
import VMMTestSupport

@Suite("RawImage")
struct RawImageTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk")
        try Data(repeating: 7, count: 4096 + 100).write(to: URL(filePath: path))
    }

    private func open(
        isReadOnly: Bool = false, lock: HostFile.Lock = .none
    ) throws -> any DiskImage {
        var options = ImageOptions()
        options.isReadOnly = isReadOnly
        options.lock = lock
        return try ImageOpener.open(path: path, options)
    }

    private func bytes(_ image: any DiskImage, at offset: UInt64, _ count: Int) throws -> [UInt8] {
        var result = [UInt8](repeating: 0xee, count: count)
        var span = result.mutableSpan
        try image.read(into: &span, at: offset)
        return result
    }

    @Test("whole sectors of the file are the disk, wherever a request begins")
    func transfers() throws {
        let image = try open()
        #expect(image.byteCount == 4096 && image.format == .raw)

        try image.write([1, 2, 3].span, at: 4093)
        try image.writeZeros(at: 1, count: 2, mayUnmap: false)

        #expect(try bytes(image, at: 0, 4) == [7, 0, 0, 7])
        #expect(try bytes(image, at: 4092, 4) == [7, 1, 2, 3])
        try image.close()
    }

    @Test("a request beyond the disk is refused and changes nothing")
    func staysInside() throws {
        let image = try open()

        #expect(throws: ImageError.self) { try image.write([1, 2].span, at: 4095) }
        #expect(throws: ImageError.self) { _ = try bytes(image, at: UInt64.max, 1) }
        #expect(throws: ImageError.self) {
            try image.writeZeros(at: 4096, count: .max, mayUnmap: true)
        }
        #expect(try Data(contentsOf: URL(filePath: path)).count == 4196)
    }

    @Test("what a file loses under the disk is an error to read, and the rest is there")
    func shrinks() throws {
        let image = try open()
        #expect(truncate(path, 100) == 0)

        #expect(try bytes(image, at: 98, 2) == [7, 7])
        #expect(throws: ImageError.self) { _ = try bytes(image, at: 98, 4) }
    }

    @Test("a sparse file's holes are told from its data")
    func allocation() throws {
        let image = try open()
        try image.resize(to: 1 << 20)

        #expect(image.byteCount == 1 << 20)
        #expect(try image.allocation(at: 512).kind == .data)
        #expect(try image.allocation(at: 512 << 10) == .init(.zeros, count: 512 << 10))
    }

    @Test("a second writer is refused, a second reader is not")
    func locks() throws {
        let writer = try open(lock: .whole)
        #expect(throws: ImageError.self) { _ = try open(isReadOnly: true, lock: .whole) }
        withExtendedLifetime(writer) {}
    }

    @Test("a declared format must be what the file holds")
    func declares() throws {
        var options = ImageOptions()
        options.format = .qcow2
        #expect(throws: ImageError.self) { _ = try ImageOpener.open(path: path, options) }
    }
}
