import VMMBase
import VMMHost

/// The image that this one falls back on.
extension QCOW2Image {
    /// As CH: deeper chains are a mistake or an attack.
    private static let depthLimit = 10

    static func openBacking(
        _ header: QCOW2Header, of file: any ImageFile, _ options: ImageOptions
    ) throws(ImageError) -> (any DiskImage)? {
        guard let name = header.backingName, !options.ignoresBackingFiles else { return nil }
        guard options.allowsBackingFiles else {
            throw .invalid(
                "has the backing file '\(name.printable)', which is opened only with"
                    + " backing_files=on"
            )
        }
        return try openBacking((name, header.backingFormat), of: file, options)
    }

    /// Opens what an image on `file` calls its backing file.
    package static func openBacking(
        _ named: (name: String, format: String?), of file: any ImageFile, _ options: ImageOptions
    ) throws(ImageError) -> any DiskImage {
        var below = options
        below.isReadOnly = true
        below.isForRepair = false
        below.format = try named.format.map(format)
        below.chain.append(try identity(of: file))
        guard below.chain.count <= depthLimit else {
            throw .invalid("has a chain of more than \(depthLimit) backing files")
        }
        let path = try path(named.name, beside: file.path)
        do throws(ImageError) {
            let backing = try HostFile(
                path: path, isReadOnly: true, isDirect: options.isDirect, lock: options.lock)
            guard !below.chain.contains(try identity(of: backing)) else {
                throw .invalid("its chain of backing files leads back to itself")
            }
            // What is declared as raw is never probed: a guest wrote it.
            if below.format == .raw { return try RawImage(backing) }
            return try ImageOpener.open(backing, below)
        } catch {
            throw .invalid("the backing file '\(path.printable)': \(error)")
        }
    }

    /// Nil for what lies on no host file.
    private static func identity(
        of file: any ImageFile
    ) throws(ImageError) -> ImageOptions.Identity? {
        guard let descriptor = file.descriptor else { return nil }
        let metadata = try hosted { () throws(HostError) in try descriptor.metadata() }
        return .init(device: metadata.device, inode: metadata.inode)
    }

    /// QEMU's names of formats.
    private static func format(_ name: String) throws(ImageError) -> ImageFormat {
        let names: [String: ImageFormat] = [
            "raw": .raw, "file": .raw, "host_device": .raw, "qcow2": .qcow2, "vpc": .vhd,
            "vhdx": .vhdx, "vmdk": .vmdk,
        ]
        guard let format = names[name] else {
            throw .unsupported("the backing format '\(name.printable)'")
        }
        return format
    }

    /// Where the file lies that an image at `path` calls `name`.
    static func path(_ name: String, beside path: String) throws(ImageError) -> String {
        var name = name[...]
        if name.hasPrefix("file:") { name = name.dropFirst(5) }
        let start = name.prefix { $0 != "/" }
        guard !start.contains(":") else {
            throw .unsupported("the backing file '\(String(name).printable)', which is not a path,")
        }
        guard !name.utf8.contains(0), !name.isEmpty else {
            throw .corrupt("the backing file's name is not a path")
        }
        guard !name.hasPrefix("/"), let slash = path.lastIndex(of: "/") else { return String(name) }
        return String(path[...slash] + name)
    }
}
