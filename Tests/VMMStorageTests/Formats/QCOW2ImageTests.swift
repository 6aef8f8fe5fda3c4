import Foundation
import Testing
import VMMBase
import VMMHost
import VMMStorage
import VMMTestSupport

@Suite("QCOW2Image")
struct QCOW2ImageTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk.qcow2")
    }

    private func make(_ size: String, _ features: String = "cluster_size=65536") throws {
        try QEMU.make("qemu-img", ["create", "-q", "-f", "qcow2", "-o", features, path, size])
    }

    private func open(isReadOnly: Bool = false) throws -> any DiskImage {
        try QCOW2Scene.open(path, isReadOnly: isReadOnly)
    }

    private func bytes(_ image: any DiskImage, at offset: UInt64, _ count: Int) throws -> [UInt8] {
        var result = [UInt8](repeating: 0xee, count: count)
        var span = result.mutableSpan
        try image.read(into: &span, at: offset)
        return result
    }

    /// What opening says.
    private func refusal(_ options: ImageOptions = ImageOptions()) -> String {
        var options = options
        options.lock = .none
        do {
            _ = try ImageOpener.open(path: path, options)
            return "nothing"
        } catch {
            return "\(error)"
        }
    }

    private func patch(_ offset: Int, _ bytes: [UInt8]) throws {
        var data = try Data(contentsOf: URL(filePath: path))
        data.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        try data.write(to: URL(filePath: path))
    }

    /// Asks about a copy: the image may still be open.
    private func expectSound() throws {
        let copy = directory.file("copy.qcow2")
        try Data(contentsOf: URL(filePath: path)).write(to: URL(filePath: copy))
        let check = try QEMU.run("qemu-img", "check", copy)
        #expect(check.status == 0, "\(check.output)")
    }

    // MARK: compressed clusters

    @Test(
        "compressed clusters are read, and become plain ones when written",
        arguments: ["zlib", "zstd"], [512, 65536, 2 << 20])
    func compressed(kind: String, clusterSize: Int) throws {
        var content = (0..<(clusterSize == 512 ? 100_000 : 3 << 20)).map {
            UInt8(truncatingIfNeeded: $0 >> 9 | $0 >> 3 & $0)
        }
        content += [UInt8](repeating: 0, count: -content.count & 511)
        try Data(content).write(to: URL(filePath: directory.file("raw")))
        try QEMU.make(
            "qemu-img",
            [
                "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o",
                "compression_type=\(kind),cluster_size=\(clusterSize)", directory.file("raw"), path,
            ])
        let image = try open()
        #expect(try bytes(image, at: 0, content.count) == content)

        let new = [UInt8](repeating: 1, count: 3000)
        try image.write(new.span, at: 50_001)
        content.replaceSubrange(50_001..<53_001, with: new)

        #expect(try bytes(image, at: 0, content.count) == content)
        try image.close()
        try expectSound()
    }

    @Test(
        "what we compress, QEMU reads", arguments: [QCOW2Compression.zlib, .zstd],
        [512, 65536] as [UInt64])
    func compresses(kind: QCOW2Compression, clusterSize: UInt64) throws {
        var random = SeededGenerator(seed: 5)
        var content = [UInt8](repeating: 0, count: 300 << 10)
        for index in content.indices where index >> 14 & 1 == 0 {
            content[index] = UInt8(index >> 8 & 255)
        }
        for index in 0..<70_000 { content[index] = UInt8.random(in: 0...255, using: &random) }
        var options = QCOW2CreateOptions(byteCount: UInt64(content.count))
        (options.clusterSize, options.compression) = (clusterSize, kind)
        try Data().write(to: URL(filePath: path))
        let file = try HostFile(path: path, isReadOnly: false, lock: .none)
        try QCOW2Image.create(on: file, options)
        let image = try QCOW2Image(file, ImageOptions())

        for start in stride(from: 0, to: content.count, by: Int(clusterSize)) {
            let end = min(content.count, start + Int(clusterSize))
            try image.writeCompressed(Array(content[start..<end]).span, at: UInt64(start))
        }
        try image.close()

        try expectSound()
        #expect(try bytes(image, at: 0, content.count) == content)
        try Data(content).write(to: URL(filePath: directory.file("raw")))
        let raw = directory.file("raw")
        #expect(
            try QEMU.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, raw).status == 0)
        let check = try QEMU.run("qemu-img", "check", directory.file("copy.qcow2"))
        #expect(!check.output.contains(" 0.00% compressed"), "\(check.output)")
    }

    @Test("guest data on a table is never written: the image is marked, and refuses writes")
    func overlap() throws {
        try make("1M", "cluster_size=4096")
        try QEMU.make("qemu-io", ["-c", "write -P 1 0 64k", path])
        let data = [UInt8](try Data(contentsOf: URL(filePath: path)))
        func number(_ offset: Int) -> Int {
            data[offset..<offset + 8].reduce(0) { $0 << 8 | Int($1) } & 0x00ff_ffff_ffff_fe00
        }
        let table = number(number(40))
        let block = number(number(48))
        let entry = (0..<8).map { UInt8(truncatingIfNeeded: block >> (56 - 8 * $0)) }
        try patch(table + 8, [entry[0] | 0x80] + entry[1...])
        let image = try open()

        #expect(throws: ImageError.self) { try image.write([5].span, at: 5000) }

        #expect(image.isReadOnly)
        #expect(throws: ImageError.self) { try image.write([5].span, at: 0) }
        #expect(try bytes(image, at: 0, 1) == [1])
        #expect(try Data(contentsOf: URL(filePath: path))[79] & 2 == 2)
    }

    // MARK: what is refused

    @Test("what Swiftlet does not do is refused by its name")
    func refusals() throws {
        try make("1M", "data_file=\(directory.file("data")),data_file_raw=on")
        #expect(refusal().contains("external data file"))
        try make("1M", "extended_l2=on,cluster_size=65536")
        #expect(refusal().contains("extended L2"))
        try make("1M")
        try patch(72, [0x40])
        #expect(refusal().contains("bit 62"))
        try make("1M")
        try patch(32, [0, 0, 0, 2])
        #expect(refusal().contains("encryption"))
    }

    @Test("an unknown feature is named by the image's own table")
    func featureNames() throws {
        try make("1M")
        var data = try Data(contentsOf: URL(filePath: path))
        let name = try #require(data.range(of: Data("dirty bit".utf8)))
        data[name.lowerBound - 1] = 9
        data[78] |= 2
        try data.write(to: URL(filePath: path))
        #expect(refusal().contains("'dirty bit'"))
    }

    @Test("a disk is not made smaller, and nothing is written to a read-only one")
    func limits() throws {
        try make("1M")
        let image = try open()
        #expect(throws: ImageError.self) { try image.resize(to: 512 << 10) }
        #expect(throws: ImageError.self) { try image.resize(to: 1000) }
        #expect(throws: ImageError.self) { try image.write([1].span, at: 1 << 20) }
        try image.close()
    }

    // MARK: backing files

    private func makeChain(_ depth: Int) throws {
        try Data(repeating: 4, count: 1 << 20).write(to: URL(filePath: directory.file("0")))
        for level in 1...depth {
            try QEMU.make(
                "qemu-img",
                [
                    "create", "-q", "-f", "qcow2", "-b", "\(level - 1)", "-F",
                    level == 1 ? "raw" : "qcow2", directory.file("\(level)"),
                ])
            try QEMU.make(
                "qemu-io",
                ["-c", "write -P \(level + 100) \(level * 64)k 1k", directory.file("\(level)")])
        }
        try FileManager.default.moveItem(atPath: directory.file("\(depth)"), toPath: path)
    }

    @Test("a chain is read through, and engines find each image's bytes in its file")
    func chain() throws {
        try makeChain(10)
        let image = try open()

        #expect(try bytes(image, at: 0, 1) == [4])
        #expect(
            try (1...10).map { try bytes(image, at: UInt64($0) << 16, 1)[0] }
                == (101...110).map { UInt8($0) })
        #expect(try image.allocation(at: 0) == .init(.backing(depth: 10), count: 65536))
        #expect(try image.allocation(at: 10 << 16).kind == .data)
        #expect(image.files.count == 11)
        #expect(
            image.extents.extent(at: 512, limit: 512).place
                == .data(file: 10, offset: 512, isWritable: false))
    }

    @Test("a chain needs permission, an end, and a bound")
    func chainLimits() throws {
        try makeChain(10)
        #expect(refusal().contains("backing_files=on"))
        var options = ImageOptions()
        options.allowsBackingFiles = true
        try FileManager.default.moveItem(atPath: path, toPath: directory.file("10"))
        try QEMU.make(
            "qemu-img", ["create", "-q", "-f", "qcow2", "-b", "10", "-F", "qcow2", path])
        #expect(refusal(options).contains("more than 10"))

        try QEMU.make(
            "qemu-img",
            ["create", "-q", "-u", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", path, "1M"])
        options.isReadOnly = true
        #expect(refusal(options).contains("itself"))
        for name in ["nbd://localhost/x", "json:{}"] {
            try QEMU.make(
                "qemu-img",
                ["create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", path, "1M"])
            #expect(refusal(options).contains("not a path"))
        }
    }

    // MARK: extents and discards

    @Test("what a request taught the map is a whole piece of the table")
    func publishes() throws {
        try make("64M")
        try QEMU.make("qemu-io", ["-c", "write -P 1 1M 1M", path])
        let image = try open()
        #expect(image.extents.extent(at: 0, limit: 512).place == .unknown)

        _ = try bytes(image, at: 0, 1)

        #expect(image.extents.extent(at: 0, limit: 4 << 20) == .init(.zeros, count: 1 << 20))
        let extent = image.extents.extent(at: 1 << 20, limit: 1 << 20)
        guard case .data(0, _, true) = extent.place else {
            Issue.record("\(extent)")
            return
        }
        #expect(extent.count == 1 << 20)
        try image.close()
    }

    @Test("a discard gives the file's room back and keeps the place")
    func discards() throws {
        try make("64M")
        let image = try open()
        try image.write([UInt8](repeating: 7, count: 8 << 20).span, at: 0)
        try image.flush()
        #expect(!image.hasUnflushedMetadata)
        let place = image.extents.extent(at: 1 << 20, limit: 65536).place
        let used = try blocks()

        try image.discard(at: 0, count: 8 << 20)

        #expect(image.extents.extent(at: 1 << 20, limit: 65536).place == place)
        #expect(try bytes(image, at: 4 << 20, 10) == [UInt8](repeating: 0, count: 10))
        #expect(try blocks() < used / 4)
        try image.close()
        try expectSound()
    }

    private func blocks() throws -> Int {
        var status = stat()
        try #require(stat(path, &status) == 0)
        return Int(status.st_blocks)
    }

    @Test("shared clusters are published for reading only")
    func shared() throws {
        try make("1M")
        try QEMU.make("qemu-io", ["-c", "write -P 1 0 128k", path])
        try QEMU.make("qemu-img", ["snapshot", "-c", "before", path])
        let image = try open()
        _ = try bytes(image, at: 0, 1)
        guard case .data(0, let old, false) = image.extents.extent(at: 0, limit: 1).place else {
            Issue.record("writable")
            return
        }

        try image.write([9].span, at: 3)

        guard case .data(0, let new, true) = image.extents.extent(at: 0, limit: 1).place else {
            Issue.record("not writable")
            return
        }
        #expect(old != new)
        try image.close()
    }

    // MARK: creating

    @Test("what we create is what QEMU would")
    func creates() throws {
        var options = QCOW2CreateOptions(byteCount: 100 << 20)
        options.compression = .zstd
        options.lazyRefcounts = true
        options.preallocation = .metadata
        options.clusterSize = 4096
        try Data().write(to: URL(filePath: path))
        try QCOW2Image.create(on: try HostFile(path: path, isReadOnly: false, lock: .none), options)

        let info = try QEMU.run("qemu-img", "info", path).output
        #expect(info.contains("compression type: zstd") && info.contains("lazy refcounts: true"))
        let check = try QEMU.run("qemu-img", "check", path)
        #expect(check.status == 0 && check.output.contains("100.00% allocated"), "\(check.output)")
        #expect(try blocks() < 4096)
    }

    @Test("version 2 with large clusters grows over a longer backing file", arguments: [17, 21])
    func growsOverBacking(bits: Int) throws {
        let base = directory.file("base")
        try Data(repeating: 5, count: 16 << 20).write(to: URL(filePath: base))
        try QEMU.make(
            "qemu-img",
            [
                "create", "-q", "-f", "qcow2", "-o",
                "compat=0.10,cluster_size=\(1 << bits),backing_file=\(base),backing_fmt=raw", path,
                "3M",
            ])
        var options = ImageOptions()
        options.allowsBackingFiles = true
        options.lock = .none
        let image = try ImageOpener.open(path: path, options)
        try image.resize(to: 12 << 20)
        #expect(try bytes(image, at: 3 << 20, 9 << 20).allSatisfy { $0 == 0 })
        #expect(try bytes(image, at: 0, 3 << 20).allSatisfy { $0 == 5 })
        try image.close()
        try expectSound()
    }

    @Test("discarding what a snapshot keeps looks at each cluster a few times, not at all the rest")
    func discardsShared() throws {
        try make("1G", "cluster_size=512")
        try QEMU.make("qemu-io", ["-c", "write -q 0 64M", path])
        try QEMU.make("qemu-img", ["snapshot", "-q", "-c", "one", path])
        let image = try open()
        let started = ContinuousClock.now
        try image.discard(at: 0, count: 64 << 20)
        // 131072 clusters; looking at the rest for each is 8 billion looks, and a quarter of an hour.
        #expect(ContinuousClock.now - started < .seconds(120))
        #expect(try bytes(image, at: 0, 1 << 20).allSatisfy { $0 == 0 })
        try image.close()
    }

    @Test("a full file system costs the request, not the image")
    func fullDisk() throws {
        try make("1M")
        var rule = FaultRule([.write], .fail(code: ENOSPC))
        rule.range = 400 << 10..<(1 << 40)
        let file = FaultyFile(
            try HostFile(path: path, isReadOnly: false, lock: .none), rules: [rule], seed: 1)
        let image = try QCOW2Image(file, ImageOptions())
        try image.write([UInt8](repeating: 3, count: 40 << 10).span, at: 0)
        #expect(throws: ImageError.self) {
            try image.write([UInt8](repeating: 3, count: 512 << 10).span, at: 128 << 10)
        }

        try image.write([4].span, at: 9)

        #expect(try bytes(image, at: 8, 2) == [3, 4])
        try image.close()
        try expectSound()
    }
}
