import ArgumentParser
import VMMStorage

/// `swiftlet image create`: a new image that reads as zeros.
struct CreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Makes an image.")

    @Option(name: .shortAndLong, help: "The format: raw, qcow2, vhd, vhdx or vmdk.")
    var format = ImageFormat.raw

    @Option(name: [.customShort("o"), .customLong("options")], help: "key=value,...")
    var options: [String] = []

    @Option(
        name: .shortAndLong,
        help: "The image to fall back on (qcow2 only), as seen from the new one's directory.")
    var backing: String?

    @Option(name: [.customShort("F"), .long], help: "The format of the image to fall back on.")
    var backingFormat: ImageFormat?

    @Argument(help: "The image; what is there already is lost.")
    var file: String

    @Argument(
        help: "The size of the disk: bytes, or with K, M, G, T, P; else the backing file's.")
    var size: ByteSize?

    func run() throws {
        var creation = try ImageCreation(format, options: options)
        creation.backing = try backingFile()
        let image = try creation.make(file, byteCount: size?.byteCount)
        do throws(ImageError) { try image.close() } catch { throw ToolError(file, error) }
    }

    private func backingFile() throws(ToolError) -> ImageCreation.Backing? {
        guard backing != nil || backingFormat != nil else { return nil }
        guard format == .qcow2 else {
            throw ToolError("the \(format.rawValue) format has no backing files here")
        }
        // What a guest may have written is no way to find out a format.
        guard let backing, let backingFormat else {
            throw ToolError("-b FILE and -F FORMAT go together")
        }
        return (backing, backingFormat)
    }
}
