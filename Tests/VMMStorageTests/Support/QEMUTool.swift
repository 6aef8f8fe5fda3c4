import Foundation
import Testing

/// QEMU's own tools, to hold Swiftlet's results against.
enum QEMUTool {
    /// Runs `program` and returns its exit status and output.
    @discardableResult
    static func run(
        _ program: String = "qemu-img", _ arguments: String...
    ) throws -> (status: Int32, output: String) {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [program] + arguments
        let pipe = Pipe()
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
        let output = pipe.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
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
