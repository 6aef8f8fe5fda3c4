import FoundationEssentials
import VMMHost
import VMMStorage

/// How a new image is made: its format and the options after `-o`.
struct ImageCreation {
    private static let knownOptions: [ImageFormat: Set<String>] = [
        .raw: [],
        .qcow2: [
            "cluster_size", "compat", "compression_type", "lazy_refcounts", "preallocation",
            "refcount_bits",
        ],
        .vhd: ["subformat", "block_size"],
        .vhdx: ["subformat", "block_size", "logical_sector_size"],
        .vmdk: ["subformat"],
    ]

    /// Backing files are the user's own.
    private static let backed: ImageOptions = {
        var options = ImageOptions()
        options.allowsBackingFiles = true
        return options
    }()

    private let format: ImageFormat
    private let options: [String: String]

    typealias Backing = (name: String, format: ImageFormat)
    /// What a qcow2 image falls back on.
    var backing: Backing?

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
    /// bytes, and can hold raw and qcow2 images only. `byteCount`: nil for the backing file's.
    func make(_ path: String, byteCount: UInt64?) throws(ToolError) -> any DiskImage {
        let isNew = !FileManager.default.fileExists(atPath: path)
        do throws(ImageError) {
            let file = try Self.file(path)
            guard !file.isBlockDevice || format == .raw || format == .qcow2 else {
                throw .invalid("a block device holds raw and qcow2 images only")
            }
            let inherited = try backing.map { backing throws(ImageError) in
                try QCOW2Image.openBacking(
                    (backing.name, backing.format.qemuName), of: file, Self.backed
                ).byteCount
            }
            guard let byteCount = byteCount ?? inherited else {
                throw .invalid("needs a size")
            }
            return try make(byteCount, on: file)
        } catch {
            if isNew { try? FileManager.default.removeItem(atPath: path) }
            throw ToolError(path, error)
        }
    }

    private func make(_ byteCount: UInt64, on file: HostFile) throws(ImageError) -> any DiskImage {
        switch format {
        case .qcow2:
            try QCOW2Image.create(on: file, qcow2Options(byteCount))
            return try QCOW2Image(file, Self.backed)
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
            if try value(of: "subformat", ["dynamic": false, "fixed": true]) ?? false {
                try VHDImage.createFixed(on: file, byteCount: byteCount)
            } else {
                try VHDImage.createDynamic(
                    on: file, byteCount: byteCount,
                    blockByteCount: try size("block_size") ?? 2 << 20)
            }
            return try VHDImage.open(file)
        case .vhdx:
            try VHDXImage.create(
                on: file, byteCount: byteCount,
                blockByteCount: try size("block_size") ?? 32 << 20,
                isFixed: try value(of: "subformat", ["dynamic": false, "fixed": true]) ?? false,
                logicalBlockSize: try size("logical_sector_size") ?? 512)
            return try VHDXImage(file)
        case .vmdk:
            try VMDKImage.create(
                on: file, byteCount: byteCount,
                isSplit: try value(
                    of: "subformat", ["monolithicFlat": false, "twoGbMaxExtentFlat": true])
                    ?? false,
                createExtent: Self.file)
            return try VMDKImage(file, isAnyFile: true) { path, isReadOnly throws(ImageError) in
                try HostFile(path: path, isReadOnly: isReadOnly)
            }
        }
    }

    /// Compressed data goes into clusters that have no room yet.
    func requireCompressible() throws(ToolError) {
        guard format == .qcow2 else {
            throw ToolError("the \(format.rawValue) format cannot be compressed here")
        }
        guard ["off", nil].contains(options["preallocation"]) else {
            throw ToolError("-c and -o preallocation= exclude each other")
        }
    }

    private func qcow2Options(_ byteCount: UInt64) throws(ImageError) -> QCOW2CreateOptions {
        var result = QCOW2CreateOptions(byteCount: byteCount)
        result.backing = backing.map { ($0.name, $0.format.qemuName) }
        result.clusterSize = try size("cluster_size") ?? result.clusterSize
        result.version =
            try value(of: "compat", ["0.10": 2, "1.1": 3, "v2": 2, "v3": 3]) ?? result.version
        result.compression =
            try value(of: "compression_type", ["zlib": .zlib, "zstd": .zstd]) ?? result.compression
        result.refcountBits =
            try size("refcount_bits").map(Int.init(clamping:)) ?? result.refcountBits
        result.lazyRefcounts = try value(of: "lazy_refcounts", ["on": true, "off": false]) ?? false
        result.preallocation =
            try value(of: "preallocation", ["off": .none, "metadata": .metadata]) ?? .none
        return result
    }

    /// The option's value, which is one of the names of `choices`; nil when it is not given.
    private func value<Value>(
        of option: String, _ choices: [String: Value]
    ) throws(ImageError) -> Value? {
        guard let text = options[option] else { return nil }
        guard let value = choices[text] else {
            let names = choices.keys.sorted().joined(separator: " or ")
            throw .invalid("\(option) is '\(text)' but can be \(names)")
        }
        return value
    }

    private func size(_ option: String) throws(ImageError) -> UInt64? {
        guard let text = options[option] else { return nil }
        guard let size = ByteSize(argument: text) else {
            throw .invalid("\(option) is '\(text)', which is no size")
        }
        return size.byteCount
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
