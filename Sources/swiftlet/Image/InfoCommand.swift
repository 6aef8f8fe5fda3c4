import ArgumentParser
import Foundation
import VMMHost
import VMMStorage

/// `swiftlet image info`: what an image is.
struct InfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Shows an image's format and sizes.")

    @Option(name: .shortAndLong, help: "The format; the default is what the file holds.")
    var format: ImageFormat?

    @Flag(help: "Print JSON, with the names that qemu-img uses.")
    var json = false

    @Argument(help: "The image.")
    var file: String

    func run() throws {
        let image = try ImageCommand.open(file, format, isReadOnly: true)
        let report = try Report(image, path: file)
        print(json ? try JSONText.make(report) : report.text)
    }

    private struct Report: Encodable {
        let filename: String
        let format: String
        let virtualSize: UInt64
        let actualSize: UInt64
        let clusterSize: UInt64?
        let backingFilename: String?
        let backingFormat: String?
        let dirtyFlag: Bool

        enum CodingKeys: String, CodingKey {
            case filename, format
            case virtualSize = "virtual-size"
            case actualSize = "actual-size"
            case clusterSize = "cluster-size"
            case backingFilename = "backing-filename"
            case backingFormat = "backing-filename-format"
            case dirtyFlag = "dirty-flag"
        }

        init(_ image: any DiskImage, path: String) throws {
            let summary = image.summary
            filename = path
            format = image.format.rawValue
            virtualSize = image.byteCount
            clusterSize = summary.unitByteCount
            backingFilename = summary.backing?.name
            backingFormat = summary.backing?.format
            dirtyFlag = summary.isDirty
            actualSize = try Self.allocatedByteCount(image, path)
        }

        /// Of the named file and, for a VMDK, of those that its descriptor names.
        private static func allocatedByteCount(
            _ image: any DiskImage, _ path: String
        ) throws -> UInt64 {
            let named = try FileDescriptor.open(path, .readOnly).metadata().allocatedByteCount
            guard image.format == .vmdk else { return named }
            return try image.files.compactMap(\.descriptor).reduce(named) {
                try $0 + $1.metadata().allocatedByteCount
            }
        }

        var text: String {
            var lines = [
                "image: \(filename)", "file format: \(format)",
                "virtual size: \(ByteSize.text(virtualSize)) (\(virtualSize) bytes)",
                "disk size: \(ByteSize.text(actualSize))",
            ]
            if let clusterSize { lines.append("cluster size: \(clusterSize)") }
            if let backingFilename { lines.append("backing file: \(backingFilename)") }
            if let backingFormat { lines.append("backing file format: \(backingFormat)") }
            if dirtyFlag { lines.append("was not closed: check it") }
            return lines.joined(separator: "\n")
        }
    }
}

/// JSON for scripts: sorted, so that it is the same each time.
enum JSONText {
    static func make(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}
