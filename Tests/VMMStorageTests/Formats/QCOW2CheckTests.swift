import Foundation
import Testing
import VMMHost
import VMMStorage
import VMMTestSupport

/// Our check beside `qemu-img check`, on images that were broken on purpose.
@Suite("QCOW2 check")
struct QCOW2CheckTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk.qcow2")
    }

    /// 4 MiB in clusters of 4 KiB, with a snapshot, then changed, and with compressed clusters.
    private func make(version: Int = 3) throws -> [UInt8] {
        try Data(repeating: 3, count: 1 << 20).write(to: URL(filePath: directory.file("raw")))
        try QEMU.make(
            "qemu-img",
            [
                "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o",
                "cluster_size=4096,compat=\(version == 3 ? "1.1" : "0.10")",
                directory.file("raw"), path,
            ])
        try QEMU.make("qemu-img", ["resize", "-q", path, "4M"])
        try QEMU.make("qemu-io", ["-c", "write -P 7 1000k 500k", path])
        try QEMU.make("qemu-img", ["snapshot", "-c", "before", path])
        try QEMU.make("qemu-io", ["-c", "write -P 9 1100k 20k", path])
        let image = try QCOW2Scene.open(path, isReadOnly: true)
        return try content(image)
    }

    private func content(_ image: any DiskImage) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0xee, count: Int(image.byteCount))
        var span = bytes.mutableSpan
        try image.read(into: &span, at: 0)
        return bytes
    }

    private func number(_ offset: Int, _ data: Data) -> Int {
        data[offset..<offset + 8].reduce(0) { $0 << 8 | Int($1) }
    }

    /// The file's first refcount block, by its table.
    private func change(_ body: (inout Data, _ block: Int) -> Void) throws {
        var data = try Data(contentsOf: URL(filePath: path))
        let block = number(number(48, data), data)
        body(&data, block)
        try data.write(to: URL(filePath: path))
    }

    private func repair(_ repair: ImageRepair) throws -> ImageCheck {
        var options = ImageOptions()
        options.isForRepair = true
        options.lock = .none
        let image = try ImageOpener.open(path: path, options)
        let result = try image.check(repair)
        try image.close()
        return result
    }

    @Test("a sound image with snapshots and compressed clusters has nothing to report")
    func sound() throws {
        _ = try make()
        let image = try QCOW2Scene.open(path, isReadOnly: true)

        let result = try image.check(.nothing)

        #expect(result.corruptions == 0 && result.leaks == 0, "\(result.findings)")
        #expect(result.totalUnits == 1024 && result.allocatedUnits > 250)
    }

    @Test("leaks are found, and room is got back")
    func leaks() throws {
        let before = try make()
        try change { data, block in
            data += Data(repeating: 0, count: 1600 * 4096 - data.count)
            for cluster in 1500..<1520 { data[block + cluster * 2 + 1] = 1 }
        }
        #expect(try QCOW2Scene.open(path, isReadOnly: true).check(.nothing).leaks == 20)

        let result = try repair(.leaks)

        #expect(result.leaks == 0 && result.repairedLeaks == 20)
        #expect(try QEMU.run("qemu-img", "check", path).status == 0)
        #expect(try content(try QCOW2Scene.open(path)) == before)
    }

    @Test("counts that are too low are rebuilt", arguments: [2, 3])
    func rebuilds(version: Int) throws {
        let before = try make(version: version)
        try change { data, block in
            for cluster in 0..<300 { data[block + cluster * 2 + 1] = UInt8(cluster % 3) }
        }
        #expect(throws: ImageError.self) { _ = try QCOW2Scene.open(path) }

        let result = try repair(.everything)

        #expect(result.corruptions == 0 && result.leaks == 0, "\(result.findings)")
        #expect(result.repairedCorruptions > 0)
        let check = try QEMU.run("qemu-img", "check", path)
        #expect(check.status == 0, "\(check.output)")
        #expect(try content(try QCOW2Scene.open(path)) == before)
        #expect(try QEMU.run("qemu-img", "snapshot", "-a", "before", path).status == 0)
    }

    @Test("an image that was not closed is mended before it is written")
    func dirty() throws {
        let before = try make()
        try change { data, block in
            data[79] |= 1
            for cluster in 100..<900 { data[block + cluster * 2 + 1] = 0 }
        }

        let reader = try QCOW2Scene.open(path, isReadOnly: true)
        #expect(try content(reader) == before)
        try withExtendedLifetime(reader) {
            let writer = directory.file("copy.qcow2")
            try FileManager.default.copyItem(atPath: path, toPath: writer)
            let image = try QCOW2Scene.open(writer)
            #expect(try content(image) == before)
            try image.write([1, 2, 3].span, at: 5)
            try image.close()
            #expect(try Data(contentsOf: URL(filePath: writer))[79] & 1 == 0)
        }
        #expect(try QEMU.run("qemu-img", "check", directory.file("copy.qcow2")).status == 0)
    }

    @Test("what QEMU left dirty with lazy refcounts is rebuilt when it is opened for writing")
    func abandoned() throws {
        try QEMU.make(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "4M"])
        // It dies after a flush; refcounts were in its memory only.
        let result = try QEMU.run(
            "qemu-io", "-c", "write -P 7 1000k 500k", "-c", "flush", "-c", "abort", path)
        #expect(result.status != 0)
        #expect(try Data(contentsOf: URL(filePath: path))[79] & 1 == 1, "QEMU left it dirty")
        #expect(try QEMU.run("qemu-img", "check", path).status != 0)

        let image = try QCOW2Scene.open(path)
        try image.write([9].span, at: 0)
        try image.close()

        #expect(try Data(contentsOf: URL(filePath: path))[79] & 1 == 0)
        #expect(try QEMU.run("qemu-img", "check", path).status == 0)
        var model = [UInt8](repeating: 0, count: 4 << 20)
        model[0] = 9
        model.replaceSubrange(1000 << 10..<1500 << 10, with: repeatElement(7, count: 500 << 10))
        try QEMU.expect(path, format: "qcow2", holds: model)
    }

    @Test("an image marked as corrupt is read, not written, and mended on request")
    func corrupt() throws {
        let before = try make()
        try change { data, _ in data[79] |= 2 }

        #expect(throws: ImageError.self) { _ = try QCOW2Scene.open(path) }
        #expect(try content(try QCOW2Scene.open(path, isReadOnly: true)) == before)
        #expect(try repair(.everything).corruptions == 0)
        #expect(try content(try QCOW2Scene.open(path)) == before)
    }

    @Test("persistent bitmaps are counted while they are in step, and made stale by writing")
    func bitmaps() throws {
        _ = try make()
        try QEMU.make("qemu-img", ["bitmap", "--add", path, "dirt"])
        try QEMU.make("qemu-io", ["-c", "write -P 9 1100k 20k", path])
        let reader = try QCOW2Scene.open(path, isReadOnly: true).check(.nothing)
        #expect(reader.corruptions == 0 && reader.leaks == 0, "\(reader.findings)")

        let image = try QCOW2Scene.open(path)
        try image.close()

        #expect(try Data(contentsOf: URL(filePath: path))[95] & 1 == 0)
        #expect(try QEMU.run("qemu-img", "check", path).status != 2)
    }
}
