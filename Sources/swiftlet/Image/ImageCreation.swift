import Foundation
import VMMHost
import VMMStorage

/// How a new image is made: its format and the options after `-o`.
struct ImageCreation {
    private static let knownOptions: [ImageFormat: Set<String>] = [
        .raw: [], .vhd: ["subformat", "block_size"], .vhdx: ["subformat", "block_size"],
        .vmdk: ["subformat"],
    ]

    private let format: ImageFormat
    private let options: [String: String]

    /// `options`: `key=value`, with commas between them.
    init(_ format: ImageFormat, options text: [String]) throws(ToolError) {
        guard let known = Self.knownOptions[format] else {
            throw ToolError("images of the \(format.rawValue) format cannot be made")
        }
        var options: [String: String] = [:]
        for word in text.flatMap({ $0.split(separator: ",") }) {
            let pair = word.split(separator: "=", maxSplits: 1)
            guard pair.count == 2, known.contains(String(pair[0])) else {
                throw ToolError(
                    "-o '\(word)': the \(format.rawValue) format takes "
                        + (known.isEmpty
                            ? "no options" : known.sorted().joined(separator: "=, ") + "="))
            }
            options[String(pair[0])] = String(pair[1])
        }
        self.format = format
        self.options = options
    }

    /// Makes the image at `path` and opens it; what was there is lost, unless somebody else has it
    /// open or the image cannot be made as it is asked for. A block device keeps its size and its
    /// bytes, and can hold a raw image only.
    func make(_ path: String, byteCount: UInt64) throws(ToolError) -> any DiskImage {
        let isNew = !FileManager.default.fileExists(atPath: path)
        do throws(ImageError) {
            let file = try Self.file(path)
            guard !file.isBlockDevice || format == .raw else {
                throw .invalid("a block device holds raw images only")
            }
            return try make(byteCount, on: file)
        } catch {
            if isNew { try? FileManager.default.removeItem(atPath: path) }
            throw ToolError(path, error)
        }
    }

    private func make(_ byteCount: UInt64, on file: HostFile) throws(ImageError) -> any DiskImage {
        switch format {
        case .qcow2: throw .unsupported("the qcow2 format")
        case .raw:
            guard byteCount > 0, byteCount % 512 == 0 else {
                throw .invalid("a disk is whole sectors of 512 bytes, at least one")
            }
            if !file.isBlockDevice {
                do throws(HostError) {
                    try file.resize(to: 0)
                    try file.resize(to: byteCount)
                } catch {
                    throw .host(error)
                }
            }
            return try RawImage(file)
        case .vhd:
            if try isChosen("fixed", insteadOf: "dynamic") {
                try VHDImage.createFixed(on: file, byteCount: byteCount)
            } else {
                try VHDImage.createDynamic(
                    on: file, byteCount: byteCount, blockByteCount: try blockSize ?? 2 << 20)
            }
            return try VHDImage.open(file)
        case .vhdx:
            try VHDXImage.create(
                on: file, byteCount: byteCount, blockByteCount: try blockSize ?? 32 << 20,
                isFixed: try isChosen("fixed", insteadOf: "dynamic"))
            return try VHDXImage(file)
        case .vmdk:
            try VMDKImage.create(
                on: file, byteCount: byteCount,
                isSplit: try isChosen("twoGbMaxExtentFlat", insteadOf: "monolithicFlat"),
                createExtent: Self.file)
            return try VMDKImage(file) { path, isReadOnly throws(ImageError) in
                try HostFile(path: path, isReadOnly: isReadOnly)
            }
        }
    }

    private func isChosen(
        _ choice: String, insteadOf other: String
    ) throws(ImageError) -> Bool {
        let value = options["subformat"] ?? other
        guard [choice, other].contains(value) else {
            throw .invalid("subformat is '\(value)' but can be \(other) or \(choice)")
        }
        return value == choice
    }

    private var blockSize: UInt64? {
        get throws(ImageError) {
            guard let text = options["block_size"] else { return nil }
            guard let size = ByteSize(argument: text) else {
                throw .invalid("block_size is '\(text)', which is no size")
            }
            return size.byteCount
        }
    }

    /// The file, locked; made if it is not there.
    private static func file(_ path: String) throws(ImageError) -> HostFile {
        do throws(HostError) {
            _ = try FileDescriptor.open(path, [.readWrite, .create], mode: 0o644)
        } catch {
            throw .host(error)
        }
        return try HostFile(path: path, isReadOnly: false)
    }
}
