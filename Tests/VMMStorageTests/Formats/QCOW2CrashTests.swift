import Foundation
import Testing
import VMMBase
import VMMHost
import VMMStorage
import VMMTestSupport

/// A writer that dies, at every place where it can.
@Suite("QCOW2 and crashes")
struct QCOW2CrashTests {
    enum Start: String, CaseIterable, Sendable {
        /// `fullTable`: the next clusters need a longer refcount table.
        case wideRefcounts, fullTable, small, version2, snapshot, compressed, large
    }

    enum End: String, CaseIterable, Sendable {
        /// Unsynchronized sectors are lost or kept, each by itself.
        case powerCut
        /// All that was written is there.
        case kill
    }

    /// Deaths per kind of image; a long run sets SWIFTLET_TEST_CUTS.
    static let cuts =
        ProcessInfo.processInfo.environment["SWIFTLET_TEST_CUTS"].flatMap { Int($0) } ?? 4
    static let seed =
        ProcessInfo.processInfo.environment["SWIFTLET_TEST_SEED"].flatMap { UInt64($0) } ?? 0

    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    @Test(
        "nothing flushed is lost, and nothing is worse than leaks", arguments: Start.allCases,
        End.allCases)
    func dies(start: Start, end: End) throws {
        let origin = try CrashScene.Origin(start, directory)
        for seed in Self.seed + 1...Self.seed + UInt64(Self.cuts) {
            let scene = try CrashScene(origin, seed: seed)
            try scene.run(changes: Int(seed * 7919 % 100))
            try scene.die(keepsAll: end == .kill)
            try scene.expectSound("seed \(seed)")
        }
    }

    @Test("mending an image that was not closed can be interrupted")
    func mending() throws {
        let origin = try CrashScene.Origin(.small, directory)
        var bytes = [UInt8](origin.file)
        func number(_ offset: Int) -> Int {
            bytes[offset..<offset + 8].reduce(0) { $0 << 8 | Int($1) }
        }
        let block = number(number(48))
        bytes.fill(block..<block + 512, with: 0)
        bytes[79] |= 1
        for seed in 0..<40 as Range<UInt64> {
            let stable = MemoryFile(bytes)
            let volatile = try VolatileFile(stable)
            let file = FaultyFile(volatile, rules: [.deadAfter(Int(seed) / 2)], seed: seed)
            _ = try? QCOW2Image(file, ImageOptions())
            try volatile.cut(seed: seed)

            let image = try QCOW2Image(MemoryFile(stable.bytes), ImageOptions())
            let found = try image.check(.nothing)
            #expect(found.corruptions == 0 && found.leaks == 0, "\(seed): \(found.findings)")
            var content = [UInt8](repeating: 0xee, count: origin.content.count)
            var span = content.mutableSpan
            try image.read(into: &span, at: 0)
            #expect(content == origin.content)
        }
    }

    @Test("a request that fails once costs that request alone", arguments: Start.allCases)
    func failsOnce(start: Start) throws {
        let origin = try CrashScene.Origin(start, directory)
        for seed in Self.seed + 1...Self.seed + UInt64(Self.cuts) {
            let scene = try CrashScene(origin, seed: seed)
            try scene.run(changes: Int(seed * 7919 % 60), failures: 1, operations: 25)
            try scene.finish()
            try scene.expectSound("seed \(seed)")
        }
    }
}

final class CrashScene {
    struct Origin {
        let file: Data
        let content: [UInt8]
        let path: String

        init(_ start: QCOW2CrashTests.Start, _ directory: TemporaryDirectory) throws {
            var kind = QCOW2Case(clusterSize: 4096, seed: 77, byteCount: 400 << 10)
            switch start {
            case .wideRefcounts: (kind.clusterSize, kind.refcountBits) = (512, 64)
            case .fullTable:
                (kind.clusterSize, kind.refcountBits) = (512, 64)
                kind.byteCount = 2200 << 10
            case .small: kind.clusterSize = 512
            case .version2: kind.version = 2
            case .snapshot: kind.hasSnapshot = true
            case .compressed: break
            case .large: kind.clusterSize = 65536
            }
            let scene = try QCOW2Scene(kind, in: directory)
            if start == .fullTable { try scene.write(0..<1950 << 10, byte: 1) }
            try scene.perform(10)
            try scene.close()
            content = scene.model
            path = directory.file("crash.qcow2")
            if start == .compressed {
                try QEMU.make(
                    "qemu-img",
                    [
                        "convert", "-q", "-c", "-O", "qcow2", "-o", "cluster_size=4096",
                        scene.path, path,
                    ])
                file = try Data(contentsOf: URL(filePath: path))
            } else {
                file = try Data(contentsOf: URL(filePath: scene.path))
            }
        }
    }

    private let path: String
    private let stable: MemoryFile
    private let volatile: VolatileFile
    private var image: QCOW2Image?
    private var random: SeededGenerator
    private let seed: UInt64
    private var model: [UInt8]
    private var flushed: [UInt8]
    /// Written since the last flush: what is there is open.
    private var touched: [Range<Int>] = []
    /// Of requests that failed: old or new, for ever.
    private var uncertain: [Range<Int>] = []

    init(_ origin: Origin, seed: UInt64) throws {
        path = origin.path
        stable = MemoryFile([UInt8](origin.file))
        model = origin.content
        flushed = model
        random = SeededGenerator(seed: seed)
        self.seed = seed
        volatile = try VolatileFile(stable)
    }

    /// Random requests until `changes` requests to the file were done; the next `failures` fail.
    func run(changes: Int, failures: Int = .max, operations: Int = 45) throws {
        var rule = FaultRule.deadAfter(
            changes, Bool.random(using: &random) ? .fail(code: EIO) : .tear(code: EIO))
        rule.limit = failures
        let faulty = FaultyFile(volatile, rules: [rule], seed: seed)
        image = try? QCOW2Image(faulty, ImageOptions())
        for _ in 0..<operations {
            guard let image else { return }
            do {
                try step(image)
            } catch {
                guard failures == 1 else { return }
            }
        }
    }

    private func step(_ image: QCOW2Image) throws {
        let start = Int.random(in: 0..<model.count, using: &random)
        let limit = [600, 600, 5000, 5000, 40_000].randomElement(using: &random) ?? 1
        let range = start..<min(model.count, start + Int.random(in: 1...limit, using: &random))
        switch Int.random(in: 0..<20, using: &random) {
        case 0: try grow(image, by: 512 + range.count & ~511)
        case ..<12:
            let byte = UInt8.random(in: 1...255, using: &random)
            try change(range, to: byte) {
                let bytes = [UInt8](repeating: byte, count: range.count)
                let extent = image.extents.extent(at: UInt64(start), limit: UInt64(range.count))
                if case .data(0, let place, true) = extent.place, extent.count == range.count {
                    // As an engine does.
                    try image.files[0].write(bytes, at: place)
                } else {
                    try image.write(bytes.span, at: UInt64(start))
                }
            }
        case ..<16:
            try change(range, to: 0) {
                try image.writeZeros(at: UInt64(start), count: UInt64(range.count), mayUnmap: true)
            }
        default:
            try image.flush()
            settle()
        }
    }

    /// A disk that was made longer is so for good, and all of it was flushed with it.
    private func grow(_ image: QCOW2Image, by count: Int) throws {
        guard image.byteCount < 4 << 20 else { return }
        try image.resize(to: UInt64(model.count + count))
        model += [UInt8](repeating: 0, count: count)
        settle()
    }

    private func settle() {
        flushed = model
        touched = uncertain
    }

    private func change(_ range: Range<Int>, to byte: UInt8, _ body: () throws -> Void) throws {
        touched.append(range)
        do {
            try body()
        } catch {
            uncertain.append(range)
            throw error
        }
        model.fill(range, with: byte)
    }

    func die(keepsAll: Bool) throws {
        image = nil
        try volatile.cut(seed: seed, keepsAll: keepsAll)
    }

    func finish() throws {
        // The failure may not have come yet.
        if (try? image?.close()) == nil { try image?.close() }
        settle()
        image = nil
        try volatile.cut(seed: seed)
    }

    /// QEMU is asked about one death in so many.
    private static let questions: UInt64 = 4

    func expectSound(_ note: Comment) throws {
        let image = try QCOW2Image(MemoryFile(stable.bytes, isReadOnly: true), ImageOptions())
        let found = try image.check(.nothing)
        #expect(found.corruptions == 0, "\(note): \(found.findings)")
        if seed % Self.questions == 1 {
            try Data(stable.bytes).write(to: URL(filePath: path))
            let check = try QEMU.run("qemu-img", "check", "-f", "qcow2", path)
            #expect(check.status == 0 || check.status == 3, "\(note): \(check.output)")
        }
        try #require(image.byteCount >= UInt64(flushed.count))
        var content = [UInt8](repeating: 0xee, count: flushed.count)
        var span = content.mutableSpan
        try image.read(into: &span, at: 0)
        guard content != flushed else { return }
        let lost = content.indices.first { index in
            content[index] != flushed[index] && !touched.contains { $0.contains(index) }
        }
        #expect(lost == nil, note)
    }
}
