import Foundation

/// A directory of its own for a test, removed with the object.
final class ToolDirectory {
    let path = NSTemporaryDirectory() + "swiftlet-\(UUID().uuidString.prefix(8))"

    init() throws {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

struct ToolOutcome {
    let status: Int32
    let output: String
    let error: String

    /// The output, which is one JSON object.
    func json() throws -> [String: Any] {
        try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any] ?? [:]
    }
}

/// A suite that runs the built tool, and qemu-img beside it.
protocol ToolSuite {
    var directory: ToolDirectory { get }
}

extension ToolSuite {
    func file(_ name: String) -> String { directory.path + "/" + name }

    func run(_ program: String, _ arguments: [String]) throws -> ToolOutcome {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [program] + arguments
        let (output, error) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = error
        try process.run()
        let texts = [output, error].map {
            String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        }
        process.waitUntilExit()
        return ToolOutcome(
            status: process.terminationStatus, output: texts[0], error: texts[1])
    }

    @discardableResult
    func qemu(_ arguments: [String]) throws -> ToolOutcome { try run("qemu-img", arguments) }

    @discardableResult
    func qemu(_ arguments: String...) throws -> ToolOutcome { try qemu(arguments) }

    func image(_ arguments: String...) throws -> ToolOutcome { try image(arguments) }

    func image(_ arguments: [String]) throws -> ToolOutcome {
        try run(Self.tool, ["image"] + arguments)
    }

    /// The built program.
    static var tool: String {
        URL(filePath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: ".build/debug/swiftlet").path
    }

    /// A raw disk of 9 MiB and a sector, with data, holes and written zeros.
    func makeDisk() throws -> String {
        var bytes = Data(count: 9 << 20 + 512)
        for offset in [0, 100_000, 3 << 20, 5 << 20 + 4096, 9 << 20] {
            bytes.replaceSubrange(offset..<offset + 512, with: Data(repeating: 7, count: 512))
        }
        try bytes.write(to: URL(filePath: file("disk.raw")))
        return file("disk.raw")
    }
}
