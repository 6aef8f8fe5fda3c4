import ArgumentParser
import VMMHost
import VMMStorage

/// `swiftlet image convert`: the same disk in another image, without its backing files.
struct ConvertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert", abstract: "Copies an image's disk into a new image.")

    @Option(name: .shortAndLong, help: "The source's format; the default is what it holds.")
    var format: ImageFormat?

    @Option(
        name: [.customShort("O"), .customLong("output-format")],
        help: "The new image's format: raw, qcow2, vhd, vhdx or vmdk.")
    var outputFormat: ImageFormat

    @Option(name: [.customShort("o"), .customLong("options")], help: "key=value,...")
    var options: [String] = []

    @Flag(name: .shortAndLong, help: "Compress the data (qcow2 only).")
    var compress = false

    @Flag(name: .shortAndLong, help: "Show the progress even if nobody seems to look.")
    var progress = false

    @Argument(help: "The image to read.")
    var source: String

    @Argument(help: "The image to make; what is there already is lost.")
    var target: String

    func run() throws {
        let creation = try ImageCreation(outputFormat, options: options)
        if compress { try creation.requireCompressible() }
        let input = try ImageCommand.open(source, format, to: .read)
        try requireWholeSectors(input)
        let output = try creation.make(target, byteCount: input.byteCount)
        var bar = ProgressBar(total: input.byteCount, isForced: progress)
        do throws(ImageCopy.Failure) {
            try copy(input, output).run { bar.show($0) }
        } catch {
            switch error {
            case .source(let error): throw ToolError(source, error)
            case .target(let error): throw ToolError(target, error)
            }
        }
        bar.end()
        do throws(ImageError) { try output.close() } catch { throw ToolError(target, error) }
    }

    private func copy(_ input: any DiskImage, _ output: any DiskImage) -> ImageCopy {
        if compress, let output = output as? QCOW2Image {
            return ImageCopy(from: input, compressedInto: output)
        }
        // What a block device held before is still there.
        let isUsed = (output.files[0] as? HostFile)?.isBlockDevice ?? false
        return ImageCopy(from: input, to: output, isBlank: output.format != .raw || !isUsed)
    }

    /// A raw image's last part of a sector is no part of its disk, and would be lost unseen.
    private func requireWholeSectors(_ input: any DiskImage) throws {
        guard input.format == .raw else { return }
        let byteCount = try input.files[0].byteCount()
        guard byteCount == input.byteCount else {
            throw ToolError("'\(source)': its \(byteCount) bytes are no whole sectors of 512")
        }
    }
}
