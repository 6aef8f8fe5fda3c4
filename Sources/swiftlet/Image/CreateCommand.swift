import ArgumentParser
import VMMStorage

/// `swiftlet image create`: a new image that reads as zeros.
struct CreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Makes an image.")

    @Option(name: .shortAndLong, help: "The format: raw, vhd, vhdx or vmdk.")
    var format = ImageFormat.raw

    @Option(name: [.customShort("o"), .customLong("options")], help: "key=value,...")
    var options: [String] = []

    @Option(name: .shortAndLong, help: "The image to fall back on.")
    var backing: String?

    @Option(name: [.customShort("F"), .long], help: "The format of the image to fall back on.")
    var backingFormat: ImageFormat?

    @Argument(help: "The image; what is there already is lost.")
    var file: String

    @Argument(help: "The size of the disk: bytes, or with K, M, G, T, P.")
    var size: ByteSize

    func run() throws {
        guard backing == nil, backingFormat == nil else {
            throw ToolError("the \(format.rawValue) format has no backing files here")
        }
        let image = try ImageCreation(format, options: options)
            .make(file, byteCount: size.byteCount)
        do throws(ImageError) { try image.close() } catch { throw ToolError(file, error) }
    }
}
