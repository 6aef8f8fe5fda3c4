import ArgumentParser
import VMMStorage

/// `swiftlet image resize`: another size of the disk.
struct ResizeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resize", abstract: "Changes the size of an image's disk.")

    @Option(name: .shortAndLong, help: "The format; the default is what the file holds.")
    var format: ImageFormat?

    @Flag(help: "Allow a smaller size; what lies behind it is lost.")
    var shrink = false

    @Argument(help: "The image.")
    var file: String

    @Argument(help: "The size: bytes, or with K, M, G, T, P; after a '+' how much is added.")
    var size: String

    func run() throws {
        let image = try ImageCommand.open(file, format, to: .write)
        let isAdded = size.hasPrefix("+")
        guard let given = ByteSize(argument: isAdded ? String(size.dropFirst()) : size) else {
            throw ToolError("'\(size)' is no size")
        }
        let (target, overflows) = given.byteCount.addingReportingOverflow(
            isAdded ? image.byteCount : 0)
        guard !overflows, target <= UInt64(Int64.max) else {
            throw ToolError("'\(size)' is more than any disk has")
        }
        // The other formats say themselves that they cannot.
        guard target >= image.byteCount || shrink || image.format != .raw else {
            throw ToolError("'\(file)': a smaller size loses data; say --shrink to mean it")
        }
        do throws(ImageError) {
            try image.resize(to: target)
            try image.close()
        } catch {
            throw ToolError(file, error)
        }
    }
}
