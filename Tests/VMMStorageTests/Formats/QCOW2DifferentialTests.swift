import Foundation
import Testing
import VMMBase
import VMMStorage
import VMMTestSupport

/// A kind of image and the seed of what is done to it.
struct QCOW2Case: CustomTestStringConvertible, Sendable {
    enum Backing: String, Sendable { case none, raw, smaller, larger }

    var clusterSize: Int
    var version: Int
    var refcountBits: Int
    var backing: Backing
    var hasSnapshot: Bool
    var isOurs: Bool
    var seed: UInt64

    var testDescription: String {
        "cluster \(clusterSize) v\(version) refcount \(refcountBits) backing \(backing) "
            + "snapshot \(hasSnapshot) ours \(isOurs) seed \(seed)"
    }

    var byteCount: Int

    init(
        clusterSize: Int = 65536, version: Int = 3, refcountBits: Int = 16,
        backing: Backing = .none, hasSnapshot: Bool = false, isOurs: Bool = false, seed: UInt64,
        byteCount: Int? = nil
    ) {
        self.clusterSize = clusterSize
        self.version = version
        self.refcountBits = refcountBits
        self.backing = backing
        self.hasSnapshot = hasSnapshot
        self.isOurs = isOurs
        self.seed = seed
        self.byteCount = byteCount ?? Self.byteCount(clusterSize)
    }

    /// A few hundred clusters, and more than one L2 table where that is small.
    private static func byteCount(_ clusterSize: Int) -> Int {
        switch clusterSize {
        case ..<4096: 700 << 10
        case ..<65536: 3 << 20
        case ..<(2 << 20): 8 << 20
        default: 24 << 20
        }
    }

    static let all: [QCOW2Case] = [
        .init(clusterSize: 512, seed: 1),
        .init(clusterSize: 512, refcountBits: 64, isOurs: true, seed: 2),
        .init(clusterSize: 512, version: 2, backing: .raw, seed: 3),
        .init(clusterSize: 4096, refcountBits: 1, isOurs: true, seed: 4),
        .init(clusterSize: 4096, backing: .smaller, hasSnapshot: true, seed: 5),
        .init(clusterSize: 4096, version: 2, hasSnapshot: true, seed: 6),
        .init(seed: 7),
        .init(version: 2, isOurs: true, seed: 8),
        .init(backing: .larger, seed: 9),
        .init(version: 2, backing: .larger, seed: 10),
        .init(refcountBits: 8, backing: .raw, hasSnapshot: true, seed: 11),
        .init(clusterSize: 2 << 20, refcountBits: 64, seed: 12),
        .init(clusterSize: 2 << 20, backing: .raw, hasSnapshot: true, seed: 13),
    ]
}

/// Random requests to our image and to a plain array; QEMU judges the file.
@Suite("QCOW2 against QEMU")
struct QCOW2DifferentialTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// Requests per case; a long run sets SWIFTLET_TEST_OPERATIONS.
    static let operations =
        ProcessInfo.processInfo.environment["SWIFTLET_TEST_OPERATIONS"].flatMap { Int($0) } ?? 40
    /// Added to each case's seed by a long run.
    static let seed =
        ProcessInfo.processInfo.environment["SWIFTLET_TEST_SEED"].flatMap { UInt64($0) } ?? 0

    @Test("random requests leave what a plain array has", arguments: QCOW2Case.all)
    func random(kind: QCOW2Case) throws {
        var kind = kind
        kind.seed += Self.seed
        let scene = try QCOW2Scene(kind, in: directory)

        try scene.perform(Self.operations)
        try scene.close()

        let check = try QEMU.run("qemu-img", "check", scene.path)
        #expect(check.status == 0, "\(check.output)")
        try scene.expectContent(scene.model, "the disk")
        if let snapshot = scene.snapshot {
            let applied = try QEMU.run("qemu-img", "snapshot", "-a", "before", scene.path)
            #expect(applied.status == 0, "\(applied.output)")
            try scene.expectContent(snapshot, "the snapshot")
            #expect(try QEMU.run("qemu-img", "check", scene.path).status == 0)
        }
    }
}

/// An image, what it must read as, and random requests to both.
final class QCOW2Scene {
    let path: String
    private(set) var image: (any DiskImage)!
    private(set) var model: [UInt8]
    /// What the snapshot "before" holds.
    private(set) var snapshot: [UInt8]?
    /// Version 2 does not keep a snapshot's size.
    private let canGrow: Bool
    private let directory: TemporaryDirectory
    private var random: SeededGenerator

    init(_ kind: QCOW2Case, in directory: TemporaryDirectory) throws {
        self.directory = directory
        canGrow = kind.version == 3 || !kind.hasSnapshot
        random = SeededGenerator(seed: kind.seed)
        path = directory.file("disk.qcow2")
        model = [UInt8](repeating: 0, count: kind.byteCount)
        let backing = try Self.makeBacking(kind, directory, &random)
        if let backing {
            let count = min(backing.bytes.count, model.count)
            model.replaceSubrange(..<count, with: backing.bytes[..<count])
        }
        try Self.create(kind, path, backing: backing)
        image = try Self.open(path)
        if kind.hasSnapshot {
            try perform(15)
            try image.close()
            image = nil
            try QEMU.make("qemu-img", ["snapshot", "-c", "before", path])
            snapshot = model
            image = try Self.open(path)
        }
    }

    private static func create(
        _ kind: QCOW2Case, _ path: String, backing: (name: String, format: String, bytes: [UInt8])?
    ) throws {
        guard kind.isOurs else {
            var features =
                "cluster_size=\(kind.clusterSize),compat=\(kind.version == 2 ? "0.10" : "1.1")"
            if kind.version == 3 { features += ",refcount_bits=\(kind.refcountBits)" }
            var arguments = ["create", "-q", "-f", "qcow2", "-o", features]
            if let backing { arguments += ["-b", backing.name, "-F", backing.format] }
            return try QEMU.make("qemu-img", arguments + [path, "\(kind.byteCount)"])
        }
        var options = QCOW2CreateOptions(byteCount: UInt64(kind.byteCount))
        options.clusterSize = UInt64(kind.clusterSize)
        options.version = UInt32(kind.version)
        options.refcountBits = kind.refcountBits
        options.backing = backing.map { ($0.name, $0.format) }
        try Data().write(to: URL(filePath: path))
        try QCOW2Image.create(on: try HostFile(path: path, isReadOnly: false, lock: .none), options)
    }

    private static func makeBacking(
        _ kind: QCOW2Case, _ directory: TemporaryDirectory, _ random: inout SeededGenerator
    ) throws -> (name: String, format: String, bytes: [UInt8])? {
        let count: Int
        switch kind.backing {
        case .none: return nil
        case .raw: count = kind.byteCount
        case .smaller: count = kind.byteCount / 2 + 512
        case .larger: count = kind.byteCount * 2
        }
        var bytes = [UInt8](repeating: 0, count: count)
        for _ in 0..<20 {
            let start = Int.random(in: 0..<count, using: &random)
            let end = min(count, start + Int.random(in: 1..<count / 8, using: &random))
            let byte = UInt8.random(in: 1...255, using: &random)
            bytes.fill(start..<end, with: byte)
        }
        try Data(bytes).write(to: URL(filePath: directory.file("base.raw")))
        if kind.backing == .raw { return ("base.raw", "raw", bytes) }
        try QEMU.make(
            "qemu-img",
            [
                "convert", "-q", "-c", "-O", "qcow2", directory.file("base.raw"),
                directory.file("base.qcow2"),
            ])
        return ("base.qcow2", "qcow2", bytes)
    }

    static func open(_ path: String, isReadOnly: Bool = false) throws -> any DiskImage {
        var options = ImageOptions()
        options.allowsBackingFiles = true
        options.isReadOnly = isReadOnly
        options.format = .qcow2
        options.lock = .none
        return try ImageOpener.open(path: path, options)
    }

    // MARK: requests

    func perform(_ count: Int) throws {
        for _ in 0..<count {
            switch Int.random(in: 0..<100, using: &random) {
            case ..<45: try write()
            case ..<60: try zero()
            case ..<70: try discard()
            case ..<85: try compare()
            case ..<94: try image.flush()
            case ..<97: try grow()
            default: try reopen()
            }
        }
    }

    /// Small ones, sector-aligned ones, large ones.
    private func range() -> Range<Int> {
        let start = Int.random(in: 0..<model.count, using: &random)
        let limit = [100, 4096, 70_000, 300_000].randomElement(using: &random) ?? 1
        let end = min(model.count, start + Int.random(in: 1...limit, using: &random))
        return Bool.random(using: &random) ? start..<end : start & ~511..<(end + 511) & ~511
    }

    private func write() throws {
        try write(range(), byte: UInt8.random(in: 1...255, using: &random))
    }

    func write(_ range: Range<Int>, byte: UInt8) throws {
        let bytes = [UInt8](repeating: byte, count: range.count)
        let extent = image.extents.extent(
            at: UInt64(range.lowerBound), limit: UInt64(range.count))
        if case .data(let file, let offset, true) = extent.place, extent.count == range.count {
            // As an engine does.
            try image.files[file].write(bytes.span, at: offset)
        } else {
            try image.write(bytes.span, at: UInt64(range.lowerBound))
        }
        model.fill(range, with: byte)
    }

    private func zero() throws {
        let range = range()
        try image.writeZeros(
            at: UInt64(range.lowerBound), count: UInt64(range.count),
            mayUnmap: Bool.random(using: &random))
        model.fill(range, with: 0)
    }

    private func discard() throws {
        let range = range()
        try image.discard(at: UInt64(range.lowerBound), count: UInt64(range.count))
        let now = try bytes(range)
        guard now != Array(model[range]) else { return }
        for (index, byte) in now.enumerated() where byte != model[range.lowerBound + index] {
            try #require(byte == 0)
            model[range.lowerBound + index] = 0
        }
    }

    private func compare() throws {
        let range = range()
        try #require(try bytes(range) == Array(model[range]), "at \(range)")
        try compareExtents(range)
    }

    /// What the map says must be what the files hold.
    private func compareExtents(_ range: Range<Int>) throws {
        var start = range.lowerBound
        while start < range.upperBound {
            let extent = image.extents.extent(
                at: UInt64(start), limit: UInt64(range.upperBound - start))
            let end = start + Int(extent.count)
            switch extent.place {
            case .unknown: break
            case .zeros:
                let isZero = Array(model[start..<end]) == [UInt8](repeating: 0, count: end - start)
                try #require(isZero, "zeros at \(start)")
            case .data(let file, let offset, _):
                var bytes = [UInt8](repeating: 0xee, count: end - start)
                var span = bytes.mutableSpan
                try image.files[file].readPadded(into: &span, at: offset)
                try #require(bytes == Array(model[start..<end]), "extent at \(start)")
            }
            start = end
        }
    }

    private func grow() throws {
        let count = Int.random(in: 1...200, using: &random) * 512
        guard canGrow else { return }
        try image.resize(to: UInt64(model.count + count))
        model += [UInt8](repeating: 0, count: count)
    }

    func close() throws {
        try image.close()
        image = nil
    }

    private func reopen() throws {
        try close()
        image = try Self.open(path)
    }

    func bytes(_ range: Range<Int>) throws -> [UInt8] {
        var result = [UInt8](repeating: 0xee, count: range.count)
        var span = result.mutableSpan
        try image.read(into: &span, at: UInt64(range.lowerBound))
        return result
    }

    func expectContent(_ bytes: [UInt8], _ what: Comment) throws {
        let raw = directory.file("model.raw")
        try Data(bytes).write(to: URL(filePath: raw))
        let result = try QEMU.run(
            "qemu-img", "compare", "-U", "-f", "qcow2", "-F", "raw", path, raw)
        #expect(result.status == 0, "\(what): \(result.output)")
    }
}

extension [UInt8] {
    /// As `replaceSubrange`, at once even in a debug build.
    mutating func fill(_ range: Range<Int>, with byte: UInt8) {
        _ = withUnsafeMutableBytes { bytes in
            UnsafeMutableRawBufferPointer(rebasing: bytes[range])
                .initializeMemory(as: UInt8.self, repeating: byte)
        }
    }
}
