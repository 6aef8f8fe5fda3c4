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

    /// What an image is opened for.
    enum Purpose {
        case read, write
        /// Its structure is read, or mended: its backing files may be missing.
        case look, mend
    }

    /// Opens the image at `path`; a backing file that it names is the user's own.
    static func open(
        _ path: String, _ format: ImageFormat?, to purpose: Purpose
    ) throws(ToolError) -> any DiskImage {
        var options = ImageOptions()
        options.format = format
        options.isReadOnly = purpose == .read || purpose == .look
        options.allowsBackingFiles = true
        options.ignoresBackingFiles = purpose == .look || purpose == .mend
        options.isForRepair = purpose == .mend
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
    /// As QEMU calls it, in backing files' names too.
    var qemuName: String { self == .vhd ? "vpc" : rawValue }

    /// QEMU's name for VHD is understood too.
    package init?(argument: String) {
        self.init(rawValue: argument == "vpc" ? "vhd" : argument)
    }
}
