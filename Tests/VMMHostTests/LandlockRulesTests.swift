import Foundation
import Synchronization
import Testing
import VMMTestSupport

@testable import VMMHost

/// On a kernel without landlock there is nothing to test.
@Suite("Landlock rules", .enabled(if: LandlockRules.version > 0))
struct LandlockRulesTests {
    private let folder: TemporaryDirectory

    init() throws {
        folder = try TemporaryDirectory()
        for name in ["read", "write", "other"] {
            try Data("text".utf8).write(to: URL(filePath: folder.file(name)))
        }
    }

    /// The results of opening files on a thread that is held to `rules`: 0, or an error's number.
    private func open(
        _ attempts: [(String, FileDescriptor.OpenOptions)], under rules: LandlockRules
    ) throws -> [Int32] {
        let codes = Mutex<[Int32]>([])
        let thread = try HostThread(name: "probe", role: .tool) {
            do {
                try Privileges.forbidNew()
                try rules.restrictThread()
            } catch { return codes.withLock { $0.append(-1) } }
            for (path, options) in attempts {
                do throws(HostError) {
                    _ = try FileDescriptor.open(path, options)
                    codes.withLock { $0.append(0) }
                } catch {
                    codes.withLock { $0.append(error.code) }
                }
            }
        }
        thread.join()
        return codes.withLock { $0 }
    }

    @Test("a listed file opens as its rule says, and another one does not")
    func files() throws {
        let rules = try LandlockRules(version: LandlockRules.version)
        try rules.allow(folder.file("read"), .read)
        try rules.allow(folder.file("write"), [.read, .write, .control])
        let found = try open(
            [
                (folder.file("read"), .readOnly), (folder.file("read"), .readWrite),
                (folder.file("write"), .readWrite), (folder.file("other"), .readOnly),
                ("/dev/null", .readOnly),
            ], under: rules)
        #expect(found == [0, EACCES, 0, EACCES, EACCES])
    }

    @Test("a folder's rule holds for what is below it, also for what comes later")
    func folders() throws {
        let rules = try LandlockRules(version: LandlockRules.version)
        try rules.allow(folder.path, [.read, .write, .makeFile])
        let found = try open(
            [(folder.file("new"), [.writeOnly, .create]), ("/etc/passwd", .readOnly)],
            under: rules)
        #expect(found == [0, EACCES])
    }

    @Test("rules without a file allow none, and a file that is not there is no rule")
    func nothing() throws {
        let rules = try LandlockRules(version: LandlockRules.version)
        #expect(try !rules.allow(folder.file("none"), .read))
        #expect(try open([(folder.file("read"), .readOnly)], under: rules) == [EACCES])
    }

    @Test("rules are made for each older version of the kernel's, too")
    func versions() throws {
        for version in 1...LandlockRules.version {
            let rules = try LandlockRules(version: version)
            try rules.allow(folder.file("write"), [.read, .write, .control])
            #expect(try open([(folder.file("other"), .readOnly)], under: rules) == [EACCES])
        }
        #expect(LandlockRules.gaps(version: 99).isEmpty)
        #expect(LandlockRules.gaps(version: 1).count == 4)
    }
}
