import ArgumentParser
import FoundationEssentials
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
        let image = try ImageCommand.open(file, format, to: .look)
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
        let fullBackingFilename: String?
        let dirtyFlag: Bool
        let snapshotCount: UInt32?
        let formatSpecific: FormatSpecific?

        enum CodingKeys: String, CodingKey {
            case filename, format
            case virtualSize = "virtual-size"
            case actualSize = "actual-size"
            case clusterSize = "cluster-size"
            case backingFilename = "backing-filename"
            case backingFormat = "backing-filename-format"
            case fullBackingFilename = "full-backing-filename"
            case dirtyFlag = "dirty-flag"
            case snapshotCount = "snapshot-count"
            case formatSpecific = "format-specific"
        }

        init(_ image: any DiskImage, path: String) throws {
            let summary = image.summary
            filename = path
            format = image.format.rawValue
            virtualSize = image.byteCount
            clusterSize = summary.unitByteCount
            backingFilename = summary.backing?.name
            backingFormat = summary.backing?.format
            fullBackingFilename = summary.qcow2?.backingPath
            dirtyFlag = summary.isDirty
            snapshotCount = summary.qcow2?.snapshotCount
            formatSpecific = summary.qcow2.map { FormatSpecific(data: QCOW2Details($0)) }
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
            if let details = formatSpecific?.data { lines += details.lines }
            if let snapshotCount, snapshotCount > 0 { lines.append("snapshots: \(snapshotCount)") }
            if dirtyFlag { lines.append("was not closed: check it") }
            return lines.joined(separator: "\n")
        }
    }

    private struct FormatSpecific: Encodable {
        var type = "qcow2"
        let data: QCOW2Details
    }

    private struct QCOW2Details: Encodable {
        let compat: String
        let compressionType: String
        let refcountBits: Int
        let lazyRefcounts: Bool
        let corrupt: Bool

        enum CodingKeys: String, CodingKey {
            case compat, corrupt
            case compressionType = "compression-type"
            case refcountBits = "refcount-bits"
            case lazyRefcounts = "lazy-refcounts"
        }

        init(_ summary: QCOW2Summary) {
            compat = summary.version == 2 ? "0.10" : "1.1"
            compressionType = "\(summary.compression)"
            refcountBits = summary.refcountBits
            lazyRefcounts = summary.hasLazyRefcounts
            corrupt = summary.isCorrupt
        }

        var lines: [String] {
            var lines = [
                "compat: \(compat)", "compression type: \(compressionType)",
                "refcount bits: \(refcountBits)",
            ]
            if lazyRefcounts { lines.append("refcounts are kept lazily") }
            if corrupt { lines.append("is marked as damaged: check it") }
            return lines
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

    /// A list of strings.
    static func strings(_ text: String) throws -> [String] {
        try JSONDecoder().decode([String].self, from: Data(text.utf8))
    }
}
