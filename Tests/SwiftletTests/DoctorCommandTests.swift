import Foundation
import Testing

@Suite("swiftlet doctor")
struct DoctorCommandTests: ToolSuite {
    let directory: ToolDirectory

    init() throws { directory = try ToolDirectory() }

    /// The state of each thing that is looked at.
    private func states(_ words: [String] = []) throws -> (states: [String: String], status: Int32)
    {
        let outcome = try run(words.first ?? Self.tool, words.dropFirst() + ["doctor", "--json"])
        let checks = try #require(try outcome.json()["checks"] as? [[String: Any]])
        let pairs = try checks.map { check in
            let text = try #require(check["detail"] as? String)
            #expect(!text.isEmpty)
            return try (
                #require(check["name"] as? String), #require(check["state"] as? String)
            )
        }
        #expect(try outcome.json()["ready"] as? Bool == (outcome.status == 0))
        return (Dictionary(uniqueKeysWithValues: pairs), outcome.status)
    }

    @Test("each thing has a line, and what can be tried agrees with other programs")
    func report() throws {
        let (states, status) = try states()
        #expect(
            Set(states.keys) == [
                "kvm", "landlock", "seccomp", "user namespaces", "cgroup", "core scheduling",
                "huge pages", "io_uring", "taps", "passt",
            ])
        #expect((states["kvm"] == "failed") == (status == 1))
        let others = states.filter { $0.key != "kvm" }
        #expect(others.allSatisfy { ["good", "missing"].contains($0.value) })
        let namespace = try run("unshare", ["--user", "--map-root-user", "--mount", "true"])
        #expect((states["user namespaces"] == "good") == (namespace.status == 0))
        let passt = try run("sh", ["-c", "command -v passt"])
        #expect((states["passt"] == "good") == (passt.status == 0))
        let lines = try run(Self.tool, ["doctor"]).output.split(separator: "\n")
        #expect(lines.count == states.count)
        #expect(lines.filter { $0.hasPrefix("+ ") }.count == states.values.count { $0 == "good" })
    }

    @Test("who has no rights is told what he lacks")
    func lacks() throws {
        let words =
            geteuid() == 0
            ? ["setpriv", "--reuid", "65534", "--clear-groups", "--bounding-set", "-all"] : ["env"]
        let copy = "/tmp/swiftlet-doctor-\(getpid())"
        try FileManager.default.copyItem(atPath: Self.tool, toPath: copy)
        defer { try? FileManager.default.removeItem(atPath: copy) }
        let (states, _) = try states(words + [copy])
        #expect(states["cgroup"] == "missing")
        #expect(states["taps"] == "missing")
    }
}
