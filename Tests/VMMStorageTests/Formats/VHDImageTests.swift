import Foundation
import Testing
import VMMStorage
import VMMTestSupport

@Suite("VHDImage")
struct VHDImageTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk.vhd")
    }

    private func open(isReadOnly: Bool = false) throws -> any DiskImage {
        var options = ImageOptions()
        options.format = .vhd
        options.isReadOnly = isReadOnly
        options.lock = .none
        return try ImageOpener.open(path: path, options)
    }

    /// The sentence with which an image is refused.
    private func refusal(_ contents: [UInt8]) -> String {
        do throws(ImageError) {
            _ = try VHDImage.open(MemoryFile(contents))
            return ""
        } catch {
            return error.description
        }
    }

    private static let small: UInt64 = 3 * 65536 + 512

    private func create(_ byteCount: UInt64, block: UInt64? = 65536) throws -> MemoryFile {
        let file = MemoryFile()
        if let block {
            try VHDImage.createDynamic(on: file, byteCount: byteCount, blockByteCount: block)
        } else {
            try VHDImage.createFixed(on: file, byteCount: byteCount)
        }
        return file
    }

    // MARK: against QEMU

    @Test(
        "what QEMU makes is written and read as QEMU reads it",
        arguments: ["fixed", "dynamic", "fixed,force_size=on", "dynamic,force_size=on"])
    func differential(subformat: String) throws {
        try QEMU.run(
            "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=" + subformat, path, "9M")
        let byteCount = Int(try open(isReadOnly: true).byteCount)
        var workload = ImageWorkload(seed: 1, model: [UInt8](repeating: 0, count: byteCount))

        for _ in 0..<4 {
            let image = try open()
            #expect(try contents(of: image) == workload.model)
            try workload.run(60, longest: 1 << 19, on: image)
            try image.close()
        }

        try QEMU.expect(path, format: "vpc", holds: workload.model)
    }

    @Test("what QEMU writes is read, and told from what it did not write")
    func readsQEMU() throws {
        try QEMU.run("qemu-img", "create", "-q", "-f", "vpc", path, "20M")
        try QEMU.run(
            "qemu-io", "-f", "vpc", "-c", "write -P 0x41 3M 4097", "-c", "write -P 7 9M 1k", path)

        let image = try open(isReadOnly: true)

        #expect(try bytes(of: image, 3 << 20..<3 << 20 + 4097).allSatisfy { $0 == 0x41 })
        #expect(try bytes(of: image, 9 << 20..<9 << 20 + 1024).allSatisfy { $0 == 7 })
        #expect(try image.allocation(at: 0) == .init(.zeros, count: 2 << 20))
        #expect(try image.allocation(at: 3 << 20).kind == .data)
        #expect(throws: ImageError.self) { try image.write([1].span, at: 0) }
    }

    @Test(
        "QEMU reads what Swiftlet makes, in its size",
        arguments: [16 * 63 * 512 * 20, 5 << 20, 512] as [UInt64], [65536, nil] as [UInt64?])
    func created(byteCount: UInt64, block: UInt64?) throws {
        let file = try create(byteCount, block: block)
        let image = try VHDImage.open(file)
        try image.write([9, 8, 7].span, at: 100)
        try image.close()
        try Data(file.bytes).write(to: URL(filePath: path))

        var model = [UInt8](repeating: 0, count: Int(byteCount))
        model.replaceSubrange(100..<103, with: [9, 8, 7])
        try QEMU.expect(path, format: "vpc", holds: model)
    }

    // MARK: blocks

    @Test("sectors that the bitmap does not name read as zeros, and a write keeps the others")
    func bitmap() throws {
        let file = try create(Self.small)
        let image = try VHDImage.open(file)
        try image.write([UInt8](repeating: 5, count: 65536).span, at: 65536)
        try image.close()
        // In front of the bytes, which are at the first page behind footer, header and table; the
        // second byte's highest bit is sector 8's.
        var torn = file.bytes
        torn[4096 - 512 + 1] = 0x7f

        let reopened = try VHDImage.open(MemoryFile(torn))

        #expect(try bytes(of: reopened, 65536 + 4095..<65536 + 4098) == [5, 0, 0])
        #expect(reopened.extents.extent(at: 65536, limit: 1).place == .unknown)
        try reopened.write([1].span, at: 65536 + 4097)
        #expect(try bytes(of: reopened, 65536 + 4095..<65536 + 4098) == [5, 0, 1])
        #expect(try bytes(of: reopened, 65536 + 4607..<65536 + 4609) == [0, 5])
        #expect(reopened.extents.extent(at: 65536, limit: 1).place != .unknown)
    }

    @Test("a discard passes over a block of scattered sectors at once")
    func discardsScattered() throws {
        let file = try create(Self.small)
        let image = try VHDImage.open(file)
        try image.write([UInt8](repeating: 5, count: 65536).span, at: 65536)
        try image.close()
        var scattered = file.bytes
        let bitmap = 4096 - 512..<4096 - 512 + 16
        scattered.replaceSubrange(bitmap, with: repeatElement(0xaa, count: 16))

        let faulty = FaultyFile(MemoryFile(scattered), rules: [], seed: 1)
        let reopened = try VHDImage.open(faulty)
        // One look at the table's page and one at the bitmap, not one for each of 128 sectors.
        var looks = FaultRule([.read], .fail(code: EIO))
        looks.skip = 2
        faulty.rules = [looks]
        try reopened.discard(at: 65536, count: 65536)

        faulty.rules = []
        #expect(try bytes(of: reopened, 65536..<65538) == [5, 5])
    }

    @Test("a block's place is published when it gets one")
    func publishes() throws {
        let image = try VHDImage.open(try create(Self.small))
        #expect(try image.allocation(at: 0) == .init(.zeros, count: Self.small))

        try image.write([1].span, at: 3 * 65536)

        #expect(
            image.extents.extent(at: 3 * 65536 + 1, limit: 511)
                == .init(.data(file: 0, offset: 4096 + 1, isWritable: true), count: 511))
        #expect(image.extents.extent(at: 0, limit: 4).place == .zeros)
        #expect(image.hasUnflushedMetadata)
        try image.flush()
        #expect(!image.hasUnflushedMetadata)
        #expect(try image.check(.nothing).allocatedUnits == 1)
    }

    // MARK: cuts

    @Test(
        "a killed writer or a power cut costs nothing that was flushed", arguments: 0..<30,
        [true, false])
    func cuts(seed: UInt64, isKilled: Bool) throws {
        let stable = try create(40 * 4096, block: 4096)
        let volatile = try VolatileFile(stable)
        let file = FaultyFile(volatile, rules: [], seed: seed)
        let image = try VHDImage.open(file)
        var workload = ImageWorkload(seed: seed, model: [UInt8](repeating: 0, count: 40 * 4096))
        file.rules = [.deadAfter(Int.random(in: 0..<150, using: &workload.generator))]

        #expect(throws: ImageError.self) { try workload.run(.max, longest: 9000, on: image) }
        try volatile.cut(seed: seed, keepsAll: isKilled)

        let reopened = try VHDImage.open(MemoryFile(stable.bytes))
        #expect(try reopened.check(.nothing).corruptions == 0)
        #expect(workload.isKept(try contents(of: reopened)))
        try reopened.write([1].span, at: 0)
        try reopened.close()
    }

    // MARK: bad images

    @Test("what is no sound VHD is refused in a sentence that says why")
    func refuses() throws {
        let dynamic = try create(Self.small).bytes
        var differencing = try create(Self.small, block: nil).bytes
        Self.set(&differencing, at: differencing.count - 512 + 60, [0, 0, 0, 4])
        Self.seal(&differencing)

        #expect(refusal([]) == "is damaged: it ends before its footer")
        #expect(
            refusal(Array(repeating: 0, count: 4096))
                == "is damaged: its footer's checksum or disk type is wrong")
        #expect(
            refusal(differencing)
                == "uses a parent image (a differencing VHD), which Swiftlet does not support")
        #expect(
            refusal(Array(try create(Self.small, block: nil).bytes.suffix(2048)))
                == "is damaged: it is shorter than the disk of 197120 bytes in its footer")
        #expect(
            refusal(Array(dynamic.prefix(512)))
                == "is damaged: its dynamic header is missing or broken")
        #expect(
            throws: ImageError.self,
            performing: { try VHDImage.createFixed(on: MemoryFile(), byteCount: 1 << 50) })
    }

    @Test("a dynamic image without its last footer is whole")
    func lostFooter() throws {
        let file = try create(Self.small)
        let cut = MemoryFile(Array(file.bytes.dropLast(512)))

        let image = try VHDImage.open(cut)
        try image.write([4].span, at: 7)
        try image.close()

        #expect(try bytes(of: try VHDImage.open(cut), 7..<8) == [4])
        #expect(cut.bytes.suffix(512) == file.bytes.suffix(512))
    }

    @Test("blocks that overlap or lie where none can be are found, and never followed")
    func checks() throws {
        let file = try create(Self.small)
        let image = try VHDImage.open(file)
        try image.write([UInt8](repeating: 5, count: Int(Self.small)).span, at: 0)
        try image.close()
        var broken = file.bytes
        Self.set(&broken, at: 1536, Array(broken[1540..<1544]))
        Self.set(&broken, at: 1548, [0, 0, 0, 1])

        let result = try VHDImage.open(MemoryFile(broken)).check(.everything)

        #expect(result.corruptions == 2 && result.totalUnits == 4)
        #expect(
            result.findings == [
                "block 3 lies at 512, where no block can be", "blocks 0 and 1 overlap",
            ])
        #expect(throws: ImageError.self) {
            try VHDImage.open(MemoryFile(broken)).write([1].span, at: 3 * 65536)
        }
    }

    private static func set(_ contents: inout [UInt8], at offset: Int, _ bytes: [UInt8]) {
        contents.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }

    /// Makes all checksums right, as far as there is room for the structures.
    private static func seal(_ contents: inout [UInt8]) {
        seal(&contents, contents.count - 512, 512, 64)
        seal(&contents, 0, 512, 64)
        seal(&contents, 512, 1024, 36)
    }

    private static func seal(
        _ contents: inout [UInt8], _ start: Int, _ count: Int, _ field: Int
    ) {
        guard start >= 0, contents.count >= start + count else { return }
        set(&contents, at: start + field, [0, 0, 0, 0])
        let sum = ~contents[start..<start + count].reduce(0 as UInt32) { $0 &+ UInt32($1) }
        set(&contents, at: start + field, (0..<4).map { UInt8(sum >> (24 - 8 * $0) & 255) })
    }

    @Test("no change of an image's structures makes it trap, hang or grow", arguments: 0..<4)
    func hostile(seed: UInt64) throws {
        let file = try create(Self.small, block: seed == 0 ? nil : 65536)
        let image = try VHDImage.open(file)
        try image.write([1].span, at: 70000)
        try image.close()
        let end = file.bytes.count
        let attack = ImageAttack(
            image: file.bytes, structures: [0..<512, 512..<2048, 3584..<4096, end - 512..<end],
            seal: Self.seal, open: VHDImage.open)

        #expect(attack.run(600, seed: seed) > 60)
    }
}
