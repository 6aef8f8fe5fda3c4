import Foundation
import Testing

/// The machine that the boot tests run on, and what `./dev test` has put there.
enum Bed {
    struct Missing: Error, CustomStringConvertible {
        let variable: String
        var description: String { "\(variable) is not set: start the boot tests by ./dev test" }
    }

    static func setting(_ variable: String) throws -> String {
        guard let value = ProcessInfo.processInfo.environment[variable], !value.isEmpty else {
            throw Missing(variable: variable)
        }
        return value
    }

    /// The static release binary.
    static var monitor: String {
        get throws { try setting("SWIFTLET_VMM") }
    }

    /// The filters' mode where a test does not say one: `./dev test --log-calls` sets `log`. Nil: the
    /// monitor's default, which ends the process.
    static var seccomp: String? { try? setting("SWIFTLET_SECCOMP") }

    /// Kernels and initial file systems, a folder or file for each version.
    static var guests: String {
        get throws { try setting("SWIFTLET_GUEST_DIR") }
    }

    /// QEMU, where the bed's tree was made.
    static var peer: String? {
        let environment = ProcessInfo.processInfo.environment
        let cache =
            environment["SWIFTLET_CACHE"]
            ?? (environment["XDG_CACHE_HOME"]
                ?? (environment["HOME"] ?? "") + "/.cache") + "/swiftlet"
        let program = FileManager.default.currentDirectoryPath + "/Tools/bed/peer-qemu"
        let files = [cache + "/bed/tree", program]
        return files.allSatisfy(FileManager.default.fileExists) ? program : nil
    }

    /// Network interfaces of the host.
    static var interfaces: Set<String> {
        get throws { Set(try FileManager.default.contentsOfDirectory(atPath: "/sys/class/net")) }
    }
}

/// A kernel for guests.
struct Kernel: Sendable, CustomTestStringConvertible {
    enum Version: String, CaseIterable, Sendable {
        case debian12 = "6.1"
        case debian13 = "6.12"
        /// Debian 13's kernel for all machines: the only one that reads an MP table.
        case generic
    }

    enum Format: String, CaseIterable, Sendable {
        /// Boots by its PVH entry.
        case elf = "vmlinux"
        case bzImage = "vmlinuz"
    }

    let version: Version
    let format: Format

    static let standard = Kernel(version: .debian13, format: .elf)
    static let all = Version.allCases.filter { $0 != .generic }.flatMap { version in
        Format.allCases.map { Kernel(version: version, format: $0) }
    }

    var testDescription: String { "\(version.rawValue) \(format.rawValue)" }

    var path: String {
        get throws { try folder + "/" + format.rawValue }
    }

    /// What `uname -r` says.
    var release: String {
        get throws {
            try String(contentsOfFile: folder + "/version", encoding: .utf8)
                .trimmingCharacters(in: .whitespacesAndNewlines)
        }
    }

    var initramfs: String {
        get throws { try Bed.guests + "/initramfs-" + version.rawValue }
    }

    private var folder: String {
        get throws { try Bed.guests + "/" + version.rawValue }
    }
}

/// At most two guests at a time: the bed has two CPUs, and waiting tests would only use up each
/// other's deadlines.
struct GuestLimit: SuiteTrait, TestTrait, TestScoping {
    let share: Int
    var isRecursive: Bool { true }

    func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        // Only what runs code takes a share, or a suite would wait for its own tests.
        guard testCase != nil else { return try await function() }
        await Gate.shared.enter(share)
        let start = Date()
        defer {
            Gate.shared.leave(share)
            let seconds = String(format: "%.1f", Date().timeIntervalSince(start))
            print("boot tests: \(seconds) s for \(test.displayName ?? test.name)")
        }
        try await function()
    }
}

extension Trait where Self == GuestLimit {
    /// One of the places for guests.
    static var guest: Self { GuestLimit(share: 1) }
    /// All places: a guest that keeps the machine busy.
    static var aloneInTheBed: Self { GuestLimit(share: Gate.capacity) }
}

/// Counts places; who waits is served in the order of coming.
private final class Gate: @unchecked Sendable {
    static let capacity = 2
    static let shared = Gate()

    private let lock = NSLock()
    private var free = Gate.capacity
    private var waiting: [(share: Int, resume: CheckedContinuation<Void, Never>)] = []

    func enter(_ share: Int) async {
        await withCheckedContinuation { continuation in
            lock.withLock { waiting.append((share, continuation)) }
            admit()
        }
    }

    func leave(_ share: Int) {
        lock.withLock { free += share }
        admit()
    }

    private func admit() {
        let admitted = lock.withLock {
            var admitted: [CheckedContinuation<Void, Never>] = []
            while let first = waiting.first, first.share <= free {
                free -= first.share
                admitted.append(waiting.removeFirst().resume)
            }
            return admitted
        }
        admitted.forEach { $0.resume() }
    }
}
