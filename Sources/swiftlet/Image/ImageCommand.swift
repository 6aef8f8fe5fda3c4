import ArgumentParser
import VMMStorage

/// `swiftlet image`: what can be done with a disk image that no machine uses.
struct ImageCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image",
        abstract: "Looks at, checks, converts, makes and resizes disk images.",
        subcommands: [
            InfoCommand.self, CheckCommand.self, ConvertCommand.self, CreateCommand.self,
            ResizeCommand.self,
        ])

    /// Opens the image at `path`; a backing file that it names is the user's own.
    static func open(
        _ path: String, _ format: ImageFormat?, isReadOnly: Bool
    ) throws(ToolError) -> any DiskImage {
        var options = ImageOptions()
        options.format = format
        options.isReadOnly = isReadOnly
        options.allowsBackingFiles = true
        do throws(ImageError) {
            return try ImageOpener.open(path: path, options)
        } catch {
            throw ToolError(path, error)
        }
    }
}

/// Why the tool gives up: one sentence, for standard error.
struct ToolError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }

    init(_ path: String, _ error: ImageError) { description = "'\(path)': \(error)" }
}

extension ImageFormat: ExpressibleByArgument {
    /// QEMU's name for VHD is understood too.
    package init?(argument: String) {
        self.init(rawValue: argument == "vpc" ? "vhd" : argument)
    }
}
