import Foundation
import Testing
import VMMTestSupport

@testable import VMMStorage

@Suite("VHDXImage")
struct VHDXImageTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk.vhdx")
    }

    private func open(isReadOnly: Bool = false) throws -> any DiskImage {
        var options = ImageOptions()
        options.format = .vhdx
        options.isReadOnly = isReadOnly
        options.lock = .none
        return try ImageOpener.open(path: path, options)
    }

    private func refusal(_ contents: [UInt8], isReadOnly: Bool = false) -> String {
        let file = MemoryFile(contents)
        file.isReadOnly = isReadOnly
        do throws(ImageError) {
            _ = try VHDXImage(file)
            return ""
        } catch {
            return error.description
        }
    }

    private static let block = 1 << 20
    private static let small = 5 << 20 + 512
    /// Where `VHDXImage.create` puts things.
    private static let metadata = 2 << 20
    private static let table = 3 << 20

    private func create(isFixed: Bool = false) throws -> MemoryFile {
        let file = MemoryFile()
        try VHDXImage.create(
            on: file, byteCount: UInt64(Self.small), blockByteCount: UInt64(Self.block),
            isFixed: isFixed)
        return file
    }

    // MARK: against QEMU

    @Test(
        "what QEMU makes is written and read as QEMU reads it",
        arguments: [
            "subformat=fixed", "subformat=dynamic,block_size=1M", "subformat=dynamic",
            "subformat=dynamic,block_size=2M,block_state_zero=off",
        ])
    func differential(options: String) throws {
        try QEMU.run("qemu-img", "create", "-q", "-f", "vhdx", "-o", options, path, "9M")
        var workload = ImageWorkload(seed: 2, model: [UInt8](repeating: 0, count: 9 << 20))

        for _ in 0..<4 {
            let image = try open()
            #expect(try contents(of: image) == workload.model)
            try workload.run(60, longest: 1 << 19, on: image)
            #expect(try image.check(.nothing).corruptions == 0)
            try image.close()
        }

        #expect(try QEMU.run("qemu-img", "check", "-f", "vhdx", path).status == 0)
        try QEMU.expect(path, format: "vhdx", holds: workload.model)
    }

    @Test("what QEMU writes is read, and told from what it did not write")
    func readsQEMU() throws {
        try QEMU.run(
            "qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", path, "20M")
        try QEMU.run(
            "qemu-io", "-f", "vhdx", "-c", "write -P 0x41 3M 4097", "-c", "write -P 7 9M 1k", path)

        let image = try open(isReadOnly: true)

        #expect(try bytes(of: image, 3 << 20..<3 << 20 + 4097).allSatisfy { $0 == 0x41 })
        #expect(try bytes(of: image, 9 << 20..<9 << 20 + 1024).allSatisfy { $0 == 7 })
        #expect(try image.allocation(at: 0) == .init(.zeros, count: 3 << 20))
        #expect(try image.allocation(at: 3 << 20).kind == .data)
        #expect(throws: ImageError.self) { try image.write([1].span, at: 0) }
    }

    @Test("QEMU reads and writes what Swiftlet makes", arguments: [false, true])
    func created(isFixed: Bool) throws {
        let file = try create(isFixed: isFixed)
        let image = try VHDXImage(file)
        try image.write([9, 8, 7].span, at: UInt64(Self.block - 1))
        try image.close()
        try Data(file.bytes).write(to: URL(filePath: path))

        let written = try QEMU.run(
            "qemu-io", "-f", "vhdx", "-c", "write -P 3 4M 512", path)

        var model = [UInt8](repeating: 0, count: Self.small)
        model.replaceSubrange(Self.block - 1..<Self.block + 2, with: [9, 8, 7])
        model.replaceSubrange(4 << 20..<4 << 20 + 512, with: repeatElement(3, count: 512))
        #expect(written.status == 0, "\(written.output)")
        #expect(try QEMU.run("qemu-img", "check", "-f", "vhdx", path).status == 0)
        try QEMU.expect(path, format: "vhdx", holds: model)
        #expect(try contents(of: try open()) == model)
    }

    /// QEMU refuses these, so there is no peer.
    @Test("sectors of 4096 bytes are the disk's, and tables count by them")
    func largeSectors() throws {
        let file = MemoryFile()
        try VHDXImage.create(
            on: file, byteCount: 40 << 30, blockByteCount: 1 << 20, logicalBlockSize: 4096)
        let image = try VHDXImage(file)
        try image.write([5, 6].span, at: 40 << 30 - 2)
        try image.close()

        let again = try VHDXImage(file)
        #expect(again.logicalBlockSize == 4096)
        #expect(try Disk(again, DiskOptions()).logicalBlockSize == 4096)
        #expect(try bytes(of: again, 40 << 30 - 2..<40 << 30) == [5, 6])
        // A chunk is 32 GiB (MS-VHDX 2.5): one bitmap's entry before the last block's.
        let entry = Self.table + 8 * (40 << 10)
        #expect(file.bytes[entry] & 7 == 6)
        #expect(throws: ImageError.self) {
            try VHDXImage.create(on: MemoryFile(), byteCount: 512, logicalBlockSize: 4096)
        }
        #expect(throws: ImageError.self) {
            try VHDXImage.create(on: MemoryFile(), byteCount: 1 << 20, logicalBlockSize: 1024)
        }
    }

    // MARK: blocks

    @Test("a block's place is published when it gets one, and stays through a discard")
    func publishes() throws {
        let image = try VHDXImage(try create())
        #expect(try image.allocation(at: 0) == .init(.zeros, count: UInt64(Self.small)))

        try image.write([1].span, at: 3 << 20)
        let place = image.extents.extent(at: 3 << 20, limit: 512)
        try image.discard(at: 3 << 20, count: 1 << 20)

        #expect(
            place == .init(.data(file: 0, offset: 4 << 20, isWritable: true), count: 512))
        #expect(image.extents.extent(at: 3 << 20, limit: 512) == place)
        #expect(image.extents.extent(at: 0, limit: 4).place == .zeros)
        #expect(image.hasUnflushedMetadata)
        try image.flush()
        #expect(!image.hasUnflushedMetadata)
        #expect(try image.check(.nothing).allocatedUnits == 1)
    }

    @Test(
        "the states of blocks without room read as zeros, and get room when written",
        arguments: [1, 2, 3] as [UInt8])
    func states(state: UInt8) throws {
        var contents = try create().bytes
        contents[Self.table + 8] = state
        let image = try VHDXImage(MemoryFile(contents))

        #expect(try bytes(of: image, Self.block..<Self.block + 2) == [0, 0])
        try image.write([5].span, at: UInt64(Self.block))
        #expect(try bytes(of: image, Self.block..<Self.block + 2) == [5, 0])
    }

    @Test("a disk of 64 TiB costs no memory to speak of, and its blocks are found again")
    func huge() throws {
        try QEMU.run(
            "qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", path, "64T")
        let end: UInt64 = 64 << 40
        // A block in each of more pages of the table than are kept, and than are left unwritten.
        let offsets = (0..<1100).map { end - 1 - UInt64($0) * 600 << 20 }

        do {
            let image = try open()
            for offset in offsets {
                try image.write([UInt8(offset >> 20 & 0x7f) + 1].span, at: offset)
            }
            try image.close()
        }

        let image = try open(isReadOnly: true)
        #expect(image.byteCount == end)
        for offset in offsets {
            var result: [UInt8] = [0]
            var span = result.mutableSpan
            try image.read(into: &span, at: offset)
            #expect(result == [UInt8(offset >> 20 & 0x7f) + 1])
        }
    }

    @Test("more flushes than the log has room for, then a kill: QEMU and Swiftlet replay the same")
    func wraps() throws {
        try QEMU.run(
            "qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", path, "140M")
        var model = [UInt8](repeating: 0, count: 140 << 20)
        // Never closed; an entry has two of the log's 256 sectors.
        var image: (any DiskImage)? = try open()
        for block in 0..<140 {
            try image?.write([UInt8(block + 1)].span, at: UInt64(block) << 20)
            try image?.flush()
            model[block << 20] = UInt8(block + 1)
        }
        image = nil
        let copy = directory.file("copy.vhdx")
        try FileManager.default.copyItem(atPath: path, toPath: copy)

        let check = try QEMU.run("qemu-img", "check", "-f", "vhdx", "-r", "all", copy)

        #expect(check.status == 0, "\(check.output)")
        try QEMU.expect(copy, format: "vhdx", holds: model)
        #expect(try contents(of: try open()) == model)
    }

    // MARK: cuts

    @Test(
        "a killed writer or a power cut costs nothing that was flushed", arguments: 0..<10,
        [true, false])
    func cuts(seed: UInt64, isKilled: Bool) throws {
        let stable = try create()
        let volatile = try VolatileFile(stable)
        let file = FaultyFile(volatile, rules: [], seed: seed)
        let image = try VHDXImage(file)
        var workload = ImageWorkload(seed: seed, model: [UInt8](repeating: 0, count: Self.small))
        file.rules = [.deadAfter(Int.random(in: 0..<60, using: &workload.generator))]

        #expect(throws: ImageError.self) { try workload.run(.max, longest: 9000, on: image) }
        try volatile.cut(seed: seed, keepsAll: isKilled)

        let reopened = try VHDXImage(MemoryFile(stable.bytes))
        #expect(try reopened.check(.nothing).corruptions == 0)
        #expect(workload.isKept(try contents(of: reopened)))
        try reopened.write([1].span, at: 0)
        try reopened.close()
    }

    /// An image whose second flush was cut after `changes` changes, both blocks written before.
    private func cut(after changes: Int) throws -> [UInt8] {
        let memory = try create()
        let file = FaultyFile(memory, rules: [], seed: 0)
        let image = try VHDXImage(file)
        try image.write([1].span, at: 0)
        try image.flush()
        try image.write([2].span, at: UInt64(Self.block))
        var rule = FaultRule.deadAfter(changes)
        rule.operations.remove(.synchronize)
        file.rules = [rule]
        _ = try? image.flush()
        return memory.bytes
    }

    @Test("a log left behind is replayed as QEMU replays it", arguments: 0..<3)
    func replays(changes: Int) throws {
        let left = try cut(after: changes)
        try Data(left).write(to: URL(filePath: path))
        let image = try VHDXImage(MemoryFile(left))
        let disk = try contents(of: image)

        #expect(disk[0] == 1 && disk[Self.block] == (changes > 0 ? 2 : 0))
        #expect(
            refusal(left, isReadOnly: true)
                == "has changes in its log; open it for writing once to apply them")
        let check = try QEMU.run("qemu-img", "check", "-f", "vhdx", "-r", "all", path)
        #expect(check.status == 0, "\(check.output)")
        try QEMU.expect(path, format: "vhdx", holds: disk)
    }

    @Test("an entry that is torn is not applied, the one before it is")
    func torn() throws {
        var left = try cut(after: 1)
        // The second entry, of two sectors behind the first one's two.
        left[1 << 20 + 3 * 4096 + 100] ^= 1

        let image = try VHDXImage(MemoryFile(left))

        #expect(try bytes(of: image, 0..<1) == [1])
        #expect(try bytes(of: image, Self.block..<Self.block + 1) == [0])
    }

    @Test("a log clears tables, and no terabytes")
    func longZeros() throws {
        var left = try cut(after: 1)
        // The second entry's descriptor, behind its header, becomes one of zeros.
        let entry = 1 << 20 + 2 * 4096
        func clear(_ count: UInt64) throws -> [UInt8] {
            var bytes = Array(left[entry..<entry + 4096])
            bytes.replaceSubrange(64..<68, with: "zero".utf8)
            bytes.storeLittleEndian(UInt32(4096), at: 8)
            bytes.storeLittleEndian(count, at: 72)
            bytes.storeLittleEndian(UInt64(1) << 40, at: 80)
            CRC32C.seal(&bytes, at: 4)
            left.replaceSubrange(entry..<entry + 4096, with: bytes)
            return left
        }
        #expect(try refusal(clear(2 << 30)).contains("more than 1 GiB"))
        #expect(try refusal(clear(1 << 30)) == "")
    }

    // MARK: bad images

    private func sealed(_ change: (inout [UInt8]) -> Void) throws -> [UInt8] {
        var contents = try create().bytes
        change(&contents)
        Self.seal(&contents)
        return contents
    }

    @Test("what is no sound VHDX is refused in a sentence that says why")
    func refuses() throws {
        #expect(refusal([]) == "is damaged: neither of its headers is valid")
        // Two writes of the header would count over the end; found by the fuzzer.
        let late = try sealed { contents in
            for start in [64 << 10 + 8, 128 << 10 + 8] {
                contents.replaceSubrange(
                    start..<start + 8, with: [0xfe] + repeatElement(0xff, count: 7))
            }
        }
        #expect(refusal(late) == "is damaged: neither of its headers is valid")
        #expect(
            refusal(
                try sealed {
                    $0[64 << 10 + 66] = 2; $0[128 << 10 + 66] = 2
                })
                == "uses version 2 of VHDX, which Swiftlet does not support")
        #expect(
            refusal(
                try sealed {
                    $0[192 << 10 + 16] ^= 1; $0[256 << 10 + 16] ^= 1
                })
                == "uses a region that it calls required, which Swiftlet does not support")
        #expect(
            refusal(try sealed { $0[Self.metadata + 32] ^= 1 })
                == "uses a metadata item that it calls required, which Swiftlet does not support")
        #expect(
            refusal(try sealed { $0[Self.metadata + 64 << 10 + 4] = 2 })
                == "uses a parent image (a differencing VHDX), which Swiftlet does not support")
        #expect(
            refusal(Array(try create().bytes.prefix(3 << 20)))
                == "is damaged: its block table is too short or lies beyond the file's end")
    }

    @Test("one valid header and one valid region table are enough")
    func copies() throws {
        var contents = try create().bytes
        contents[64 << 10 + 8] ^= 1
        contents[192 << 10 + 40] ^= 1
        #expect(refusal(contents) == "")
        contents[128 << 10 + 8] ^= 1
        #expect(refusal(contents) == "is damaged: neither of its headers is valid")
    }

    /// The fuzzer's find: each of the table's entries was looked at, 67 million for 64 TiB.
    @Test("a check leaps over what is empty of a large disk's table, and misses nothing")
    func checkOfLargeDisk() throws {
        let file = MemoryFile()
        let blocks: UInt64 = 1 << 15
        try VHDXImage.create(
            on: file, byteCount: blocks << 20, blockByteCount: UInt64(Self.block))
        let image = try VHDXImage(file)
        // Beside the entries that are no block's, one in 4097, and at both ends of a page.
        let used: [UInt64] = [0, 510, 511, 512, 4095, 4096, 20_001, blocks - 1]
        for block in used { try image.write([5, 5, 5, 5].span, at: block << 20) }
        let result = try image.check(.nothing)
        #expect(result.allocatedUnits == UInt64(used.count))
        #expect(result.totalUnits == blocks)
        #expect(result.corruptions == 0)
        for entry in 0..<2 * blocks / 4096 {
            let layout = try VHDXLayout(
                diskByteCount: blocks << 20, blockByteCount: UInt64(Self.block),
                logicalSectorByteCount: 512)
            let block = entry * 2048 + 7
            #expect(layout.firstBlock(from: layout.entryPosition(block)) == block)
        }
    }

    @Test("blocks that overlap or lie where none can be are found, and never followed")
    func checks() throws {
        var broken = try create(isFixed: true).bytes
        let entry = Array(broken[Self.table..<Self.table + 8])
        broken.replaceSubrange(Self.table + 8..<Self.table + 16, with: entry)
        broken.replaceSubrange(Self.table + 16..<Self.table + 24, with: [6, 0, 16, 0, 0, 0, 0, 0])
        broken[Self.table + 24] = 7
        broken[Self.table + 32] = 4

        let image = try VHDXImage(MemoryFile(broken))
        let result = try image.check(.everything)

        #expect(result.corruptions == 4 && result.totalUnits == 6)
        #expect(
            result.findings == [
                "block 1 overlaps one before it",
                "block 2 lies at 1048576, where no block can be",
                "block 3 is partly in a parent, which the image has not",
                "block 4 is in the unknown state 4",
            ])
        #expect(throws: ImageError.self) { try image.write([1].span, at: 2 << 20) }
    }

    /// Makes all checksums right, by a checksum of the test's own.
    private static func seal(_ contents: inout [UInt8]) {
        seal(&contents, 64 << 10, 4096)
        seal(&contents, 128 << 10, 4096)
        // Only the first is looked at when it is valid.
        seal(&contents, 192 << 10, 64 << 10)
        contents.replaceSubrange(
            256 << 10..<320 << 10, with: Array(contents[192 << 10..<256 << 10]))
    }

    private static let table8: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(byte) { value, _ in value >> 1 ^ (value & 1) * 0x82f6_3b78 }
    }

    private static func seal(_ contents: inout [UInt8], _ start: Int, _ count: Int) {
        contents.replaceSubrange(start + 4..<start + 8, with: [0, 0, 0, 0])
        var value = UInt32.max
        let table = table8
        contents.withUnsafeBufferPointer { buffer in
            for index in start..<start + count {
                value = value >> 8 ^ table[Int((value ^ UInt32(buffer[index])) & 255)]
            }
        }
        contents.replaceSubrange(
            start + 4..<start + 8, with: (0..<4).map { UInt8(~value >> (8 * $0) & 255) })
    }

    @Test("no change of an image's structures makes it trap, hang or grow", arguments: 0..<2)
    func hostile(seed: UInt64) throws {
        // The second has a log to be replayed.
        let contents = seed == 0 ? try create().bytes : try cut(after: 2)
        let structures = [
            64 << 10..<64 << 10 + 80, 128 << 10..<128 << 10 + 80, 192 << 10..<192 << 10 + 80,
            Self.metadata..<Self.metadata + 192,
            Self.metadata + 64 << 10..<Self.metadata + 64 << 10 + 36,
            Self.table..<Self.table + 48,
        ]
        let log = [1 << 20..<1 << 20 + 96, 1 << 20 + 8192..<1 << 20 + 8192 + 96]
        let attack = ImageAttack(
            image: contents, structures: seed == 0 ? structures : log,
            seal: { contents in
                Self.seal(&contents)
                Self.seal(&contents, 1 << 20, 8192)
                Self.seal(&contents, 1 << 20 + 8192, 8192)
            }, open: { file throws(ImageError) in try VHDXImage(file) })

        #expect(attack.run(200, seed: seed) > 20)
    }
}
