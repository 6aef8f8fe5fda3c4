import ArgumentParser
import VMMBase
import VMMHost

/// `swiftlet doctor`.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Prints what this host gives a monitor, and what it lacks.",
        discussion: "The status is 0 if virtual machines run here, and 1 if they do not.")

    @Flag(help: "Print JSON.")
    var json = false

    func run() throws {
        let checks = HostCheck.all()
        FileDescriptor.standardOutput.writeAll(json ? document(checks) : table(checks))
        if checks.contains(where: { $0.state == .failed }) { throw ExitCode.failure }
    }

    private func table(_ checks: [HostCheck]) -> String {
        let width = checks.map(\.name.count).max() ?? 0
        return checks.map { check in
            let mark = check.state == .good ? "+" : "-"
            let padding = String(repeating: " ", count: width - check.name.count)
            return "\(mark) \(check.name)\(padding)  \(check.detail)\n"
        }.joined()
    }

    private func document(_ checks: [HostCheck]) -> String {
        let list = checks.map { check -> JSONValue in
            [
                "name": .string(check.name), "state": .string(check.state.rawValue),
                "detail": .string(check.detail),
            ]
        }
        let isReady = !checks.contains { $0.state == .failed }
        let document: JSONValue = ["ready": .bool(isReady), "checks": .array(list)]
        return String(decoding: document.text(isIndented: true), as: UTF8.self) + "\n"
    }
}
