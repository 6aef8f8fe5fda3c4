import Foundation
import Testing

/// The other implementation: qemu-img and qemu-io.
enum QEMU {
    struct Result {
        let status: Int32
        let output: String
    }

    @discardableResult
    static func run(_ tool: String, _ arguments: String...) throws -> Result {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/" + tool)
        process.arguments = arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        process.standardInput = FileHandle.nullDevice
        try process.run()
        let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return Result(
            status: process.terminationStatus, output: String(decoding: data, as: UTF8.self))
    }

    /// Runs what must succeed.
    static func make(_ tool: String, _ arguments: [String]) throws {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/" + tool)
        process.arguments = arguments
        process.standardOutput = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        try #require(process.terminationStatus == 0, "\(tool) \(arguments)")
    }

    /// Whether QEMU reads from the image at `path` the bytes of `model`.
    static func expect(
        _ path: String, format: String, holds model: [UInt8],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let raw = path + ".model"
        try Data(model).write(to: URL(filePath: raw))
        let result = try run("qemu-img", "compare", "-f", format, "-F", "raw", path, raw)
        #expect(result.status == 0, "\(result.output)", sourceLocation: sourceLocation)
    }
}
