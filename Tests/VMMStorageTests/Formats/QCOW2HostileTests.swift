import Foundation
import Testing
import VMMBase
import VMMHost
import VMMStorage
import VMMTestSupport

/// Images that lie. Whatever they say, there is an answer or an error, soon and in little memory.
@Suite("Hostile QCOW2")
struct QCOW2HostileTests {
    /// Images with random damage; a long run sets SWIFTLET_TEST_OPERATIONS.
    static let rounds =
        ProcessInfo.processInfo.environment["SWIFTLET_TEST_OPERATIONS"].flatMap { Int($0) } ?? 25
    static let seed =
        ProcessInfo.processInfo.environment["SWIFTLET_TEST_SEED"].flatMap { UInt64($0) } ?? 0

    private let origin: [UInt8]
    private let directory: TemporaryDirectory

    /// 256 KiB in small clusters, with a snapshot and compressed clusters: all kinds of tables.
    init() throws {
        directory = try TemporaryDirectory()
        let path = directory.file("disk.qcow2")
        try Data(repeating: 3, count: 64 << 10).write(to: URL(filePath: directory.file("raw")))
        try QEMU.make(
            "qemu-img",
            [
                "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=512",
                directory.file("raw"), path,
            ])
        try QEMU.make("qemu-img", ["resize", "-q", path, "256k"])
        try QEMU.make("qemu-io", ["-c", "write -P 7 60k 50k", path])
        try QEMU.make("qemu-img", ["snapshot", "-c", "before", path])
        try QEMU.make("qemu-io", ["-c", "write -P 9 70k 20k", "-c", "write -z 100k 4k", path])
        origin = [UInt8](try Data(contentsOf: URL(filePath: path)))
    }

    private static func number(_ offset: Int, _ bytes: [UInt8]) -> UInt64 {
        bytes[offset..<offset + 8].reduce(0) { $0 << 8 | UInt64($1) }
    }

    private static func put(_ value: UInt64, _ width: Int, at offset: Int, in bytes: inout [UInt8])
    {
        for index in 0..<width {
            bytes[offset + index] = UInt8(
                truncatingIfNeeded: value >> UInt64(8 * (width - 1 - index)))
        }
    }

    /// Does everything that can be done with an image; errors are answers.
    private func use(_ bytes: [UInt8]) {
        var options = ImageOptions()
        options.allowsBackingFiles = true
        if let image = try? ImageOpener.open(MemoryFile(bytes, isReadOnly: true), options) {
            read(image)
            _ = try? image.check(.nothing)
        }
        if let image = try? ImageOpener.open(MemoryFile(bytes), options) {
            write(image)
            read(image)
            try? image.close()
        }
        options.isForRepair = true
        if let image = try? ImageOpener.open(MemoryFile(bytes), options) {
            let result = try? image.check(.everything)
            #expect(result?.findings.count ?? 0 <= ImageCheck.findingLimit)
            write(image)
            try? image.close()
        }
    }

    private func places(_ image: any DiskImage) -> [UInt64] {
        let step = max(512, image.byteCount / 6) & ~511
        return (0..<6).map { $0 * step }.filter { $0 + 512 <= image.byteCount }
    }

    private func read(_ image: any DiskImage) {
        var bytes = [UInt8](repeating: 0, count: 16 << 10)
        for offset in places(image) {
            let count = Int(min(UInt64(bytes.count), image.byteCount - offset))
            var all = bytes.mutableSpan
            var span = all._mutatingExtracting(0..<count)
            try? image.read(into: &span, at: offset)
            _ = try? image.allocation(at: offset)
        }
    }

    private func write(_ image: any DiskImage) {
        let bytes = [UInt8](repeating: 5, count: 700)
        for offset in places(image) where offset + 2048 <= image.byteCount {
            try? image.write(bytes.span, at: offset)
            try? image.discard(at: offset + 1024, count: 512)
            try? image.writeZeros(at: offset + 100, count: 1500, mayUnmap: true)
        }
        try? image.flush()
        try? image.resize(to: (image.byteCount + 4096) & ~511)
        try? image.flush()
    }

    @Test("each field of the header at its limits")
    func header() throws {
        let fields = [
            (4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4),
            (60, 4), (64, 8), (72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 1), (112, 4),
            (116, 4),
        ]
        let size = UInt64(origin.count)
        let values: [UInt64] = [
            0, 1, 21, 64, 512, size & ~511, (size + 511) & ~511, 0xffff_ffff, 1 << 32, 1 << 55,
            1 << 62, .max, .max - 511, Self.number(40, origin), Self.number(48, origin),
        ]
        for (offset, width) in fields {
            for value in values {
                var bytes = origin
                Self.put(value, width, at: offset, in: &bytes)
                use(bytes)
            }
        }
    }

    @Test("entries of every table that point where they must not")
    func tables() throws {
        let l1 = Self.number(40, origin)
        let table = Self.number(48, origin)
        let block = Self.number(Int(table), origin)
        let l2 = Self.number(Int(l1), origin) & 0x00ff_ffff_ffff_fe00
        let copied: UInt64 = 1 << 63
        let compressed: UInt64 = 1 << 62
        let end = UInt64(origin.count) & ~511
        let targets: [UInt64] = [
            l1, table, block, l2, Self.number(64, origin), end, end + 512, 1 << 55,
            0x00ff_ffff_ffff_fe00, 1, 2, 512, 513, 1 << 56,
        ]
        let values =
            targets + targets.map { $0 | copied } + targets.map { $0 | compressed }
            + [l1 | copied | 1, .max, compressed | (.max >> 3), copied]
        let snapshots = Self.number(64, origin)
        for place in [l1, l2, l2 + 8 * 40, table, table + 8, block, snapshots] {
            for value in values {
                var bytes = origin
                Self.put(value, 8, at: Int(place), in: &bytes)
                use(bytes)
            }
        }
    }

    @Test("a refcount block that stands in the table 131072 times is compared once")
    func repeatedBlock() throws {
        let path = directory.file("repeated.qcow2")
        try Data().write(to: URL(filePath: path))
        var create = QCOW2CreateOptions(byteCount: 1 << 20)
        create.clusterSize = 512
        create.refcountBits = 1
        let file = try HostFile(path: path, isReadOnly: false)
        try QCOW2Image.create(on: file, create)
        let table = UInt64(1 << 20)
        let entry = try #require(try file.bytes(at: 512, count: 8))
        try file.write(Array(repeatElement(entry, count: 1 << 17).joined()), at: table)
        var place = [UInt8](repeating: 0, count: 12)
        Self.put(table, 8, at: 0, in: &place)
        Self.put(2048, 4, at: 8, in: &place)
        try file.write(place, at: 48)
        // So that all of them stand for clusters of the file: 500 million.
        try file.resize(to: 1 << 40)
        var options = ImageOptions()
        options.isForRepair = true

        let result = try QCOW2Image(file, options).check(.nothing)

        #expect(result.corruptions > 0)
    }

    @Test("random damage, and little memory", arguments: 1...4 as ClosedRange<UInt64>)
    func random(seed: UInt64) throws {
        var random = SeededGenerator(seed: Self.seed * 4 + seed)
        for _ in 0..<Self.rounds {
            var bytes = origin
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                // Most of the damage goes to the header and the first tables.
                let limit = [110, 4096, bytes.count].randomElement(using: &random) ?? 1
                let place = Int.random(in: 0..<limit, using: &random)
                bytes[place] = UInt8.random(in: 0...255, using: &random)
            }
            if Int.random(in: 0..<10, using: &random) == 0 {
                bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random))
            }
            use(bytes)
        }
        let status = try String(contentsOf: URL(filePath: "/proc/self/status"), encoding: .utf8)
        let peak = status.split(separator: "\n").first { $0.hasPrefix("VmHWM") }
        let kilobytes = peak.flatMap { Int($0.filter(\.isNumber)) } ?? .max
        // All suites run in this process, some with disks of tens of MiB in arrays. A sanitizer's
        // shadow takes as much again, and more.
        let sanitizer = ProcessInfo.processInfo.environment["SWIFTLET_SANITIZER"]
        #expect(kilobytes < (sanitizer == nil ? 1 : 8) << 20)
    }
}
