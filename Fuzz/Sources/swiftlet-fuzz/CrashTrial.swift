import Foundation
import VMMBase
import VMMHost
import VMMStorage

/// A process that writes to an image, and is killed at a moment of chance: `crash KILLS [SEED]`.
/// What the process was told to be stable must be on the image afterwards, and nothing on the
/// image may be worse than leaks. The process is this program again: `crash-writer FORMAT IMAGE
/// SEED`.
struct CrashTrial {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    /// An image as qemu-img makes it.
    private struct Kind {
        let format: ImageFormat
        let qemuName: String
        let options: String
        /// Whether qemu-img checks such images.
        var isChecked = true
    }

    private static let kinds = [
        Kind(format: .qcow2, qemuName: "qcow2", options: "cluster_size=4096"),
        Kind(format: .qcow2, qemuName: "qcow2", options: "cluster_size=512,refcount_bits=64"),
        Kind(format: .qcow2, qemuName: "qcow2", options: "cluster_size=4096,lazy_refcounts=on"),
        Kind(format: .qcow2, qemuName: "qcow2", options: "compat=0.10"),
        Kind(
            format: .vhd, qemuName: "vpc", options: "subformat=dynamic,force_size=on",
            isChecked: false),
        Kind(format: .vhdx, qemuName: "vhdx", options: "block_size=1M"),
    ]

    private static let byteCount = 4 << 20
    /// QEMU is asked about one trial in so many: it takes longer than all the rest.
    private static let questions = 8
    /// The longest life of a writer after its first request, in microseconds.
    private static let longestLife = 8000

    // MARK: the process that is killed

    /// Sets the highest bit of the number of a flush that is done.
    private static let stable: UInt64 = 1 << 63

    /// Writes until it is killed. Tells each request's number before it begins it, and a flush's
    /// once more when it is done.
    static func write(format: String, path: String, seed: UInt64) throws {
        var options = ImageOptions()
        options.format = ImageFormat(rawValue: format)
        let image = try ImageOpener.open(path: path, options)
        var script = CrashScript(seed: seed, byteCount: byteCount)
        var number: UInt64 = 0
        while true {
            tell(number)
            let step = script.next()
            try step.perform(on: image)
            if case .flush = step { tell(number | stable) }
            number += 1
        }
    }

    private static func tell(_ number: UInt64) {
        FileHandle.standardOutput.write(Data(FuzzInput.bytes(number)))
    }

    // MARK: the process that kills

    static func run(kills: Int, seed: UInt64) throws {
        let directory = FileManager.default.temporaryDirectory
            .appending(path: "swiftlet-crash-\(getpid())")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let images = try kinds.enumerated().map { index, kind in
            let path = directory.appending(path: "image-\(index)").path
            try qemuImage([
                "create", "-q", "-f", kind.qemuName, "-o", kind.options, path, "\(byteCount)",
            ])
            return path
        }
        var requests = 0
        for number in 0..<kills {
            let index = number % kinds.count
            let trial = CrashTrial(
                kind: kinds[index], path: directory.appending(path: "trial").path,
                seed: seed &+ UInt64(number))
            requests += try trial.run(
                from: images[index], asksQEMU: number / kinds.count % questions == 0)
        }
        print("crash: \(kills) processes killed after \(requests) requests, nothing flushed lost")
    }

    private let kind: Kind
    private let path: String
    private let seed: UInt64

    /// Returns how many requests the process had begun.
    private func run(from image: String, asksQEMU: Bool) throws -> Int {
        try? FileManager.default.removeItem(atPath: path)
        try FileManager.default.copyItem(atPath: image, toPath: path)
        let told = try kill()
        if asksQEMU, kind.isChecked { try askQEMU() }
        try verify(told)
        return Int((told.last ?? 0) & ~Self.stable)
    }

    /// Starts a writer, kills it, and returns what it told.
    private func kill() throws -> [UInt64] {
        let process = Process()
        process.executableURL = URL(filePath: CommandLine.arguments[0])
        process.arguments = ["crash-writer", kind.format.rawValue, path, "\(seed)"]
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.run()
        let output = pipe.fileHandleForReading
        var bytes = try output.read(upToCount: 8) ?? Data()
        usleep(UInt32.random(in: 0...UInt32(Self.longestLife)))
        Glibc.kill(process.processIdentifier, SIGKILL)
        bytes += try output.readToEnd() ?? Data()
        process.waitUntilExit()
        guard process.terminationReason == .uncaughtSignal, process.terminationStatus == SIGKILL
        else { throw failure("the writer ended by itself with \(process.terminationStatus)") }
        return stride(from: 0, to: bytes.count / 8 * 8, by: 8).map { start in
            (0..<8).reduce(0) { $0 | UInt64(bytes[start + $1]) << (8 * UInt64($1)) }
        }
    }

    private func verify(_ told: [UInt64]) throws {
        guard let last = told.map({ $0 & ~Self.stable }).max() else {
            throw failure("the writer told nothing")
        }
        let flushed = told.filter { $0 & Self.stable != 0 }.map { $0 & ~Self.stable }.max()
        var script = CrashScript(seed: seed, byteCount: Self.byteCount)
        var disk = [UInt8](repeating: 0, count: Self.byteCount)
        // What a request may have changed that no flush followed.
        var isOpen = [Bool](repeating: false, count: Self.byteCount)
        for number in 0...last {
            guard case .change(let range, let byte, _) = script.next() else { continue }
            if let flushed, number < flushed {
                for place in range { disk[place] = byte }
            } else {
                for place in range { isOpen[place] = true }
            }
        }
        var options = ImageOptions()
        options.format = kind.format
        // The dead process's lock may outlive it by a moment.
        options.lock = .none
        let image = try ImageOpener.open(path: path, options)
        let found = try image.check(.nothing)
        guard found.corruptions == 0 else { throw failure("corrupt: \(found.findings)") }
        var content = [UInt8](repeating: 0xee, count: Self.byteCount)
        var span = content.mutableSpan
        try image.read(into: &span, at: 0)
        try image.close()
        if let place = content.indices.first(where: { !isOpen[$0] && content[$0] != disk[$0] }) {
            throw failure("byte \(place) is \(content[place]), not \(disk[place])")
        }
    }

    /// On a copy, for QEMU replays a log before it looks at a VHDX image.
    private func askQEMU() throws {
        let copy = path + ".copy"
        try? FileManager.default.removeItem(atPath: copy)
        try FileManager.default.copyItem(atPath: path, toPath: copy)
        let repair = kind.format == .vhdx ? ["-r", "all"] : []
        do {
            try Self.qemuImage(
                ["check", "-q", "-f", kind.qemuName] + repair + [copy], allowed: [0, 3])
        } catch {
            throw failure("\(error)")
        }
    }

    private func failure(_ problem: String) -> Failure {
        Failure(description: "\(kind.qemuName) \(kind.options), seed \(seed): \(problem)")
    }

    private static func qemuImage(_ words: [String], allowed: Set<Int32> = [0]) throws {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/qemu-img")
        process.arguments = words
        // Leaks are listed one by one.
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard allowed.contains(process.terminationStatus) else {
            throw Failure(description: "qemu-img \(words) ended with \(process.terminationStatus)")
        }
    }
}

/// The same requests to a disk for the same seed.
struct CrashScript {
    enum Step {
        /// Bytes that are all `byte` afterwards; how zeros come about is `unmaps`.
        case change(Range<Int>, byte: UInt8, unmaps: Bool)
        case flush

        func perform(on image: any DiskImage) throws(ImageError) {
            switch self {
            case .change(let range, 0, let unmaps):
                try image.writeZeros(
                    at: UInt64(range.lowerBound), count: UInt64(range.count), mayUnmap: unmaps)
            case .change(let range, let byte, _):
                let bytes = [UInt8](repeating: byte, count: range.count)
                try image.write(bytes.span, at: UInt64(range.lowerBound))
            case .flush: try image.flush()
            }
        }
    }

    private var generator: SeededGenerator
    private let byteCount: Int

    init(seed: UInt64, byteCount: Int) {
        generator = SeededGenerator(seed: seed)
        self.byteCount = byteCount
    }

    mutating func next() -> Step {
        let kind = Int.random(in: 0..<10, using: &generator)
        let start = Int.random(in: 0..<byteCount, using: &generator)
        let longest = [512, 5000, 70_000][Int.random(in: 0..<3, using: &generator)]
        let count = Int.random(in: 1...longest, using: &generator)
        let byte = UInt8.random(in: 1...255, using: &generator)
        let range = start..<min(byteCount, start + count)
        switch kind {
        case ..<6: return .change(range, byte: byte, unmaps: false)
        case 6, 7: return .change(range, byte: 0, unmaps: kind == 7)
        default: return .flush
        }
    }
}
