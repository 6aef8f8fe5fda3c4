import VMMBase
import VMMHost

/// A VMDK that is a text and flat files beside it.
package final class VMDKImage: MappedImage {
    /// Opens a file that the descriptor names; a path that is not absolute is relative to the
    /// descriptor's directory, which the image has already put before it.
    package typealias OpenExtent = (
        _ path: String, _ isReadOnly: Bool
    ) throws(ImageError) -> any ImageFile

    package let format = ImageFormat.vmdk
    package let byteCount: UInt64
    package let isReadOnly: Bool
    package let files: [any ImageFile]
    package let extents: ExtentMap
    /// Kept for its lock.
    private let descriptor: any ImageFile

    /// `isAnyFile`: the descriptor may name any files. Else they are those that were made with it,
    /// beside it and by its name.
    package init(
        _ descriptor: any ImageFile, isAnyFile: Bool, openExtent: OpenExtent
    ) throws(ImageError) {
        let bytes = try Self.bytes(of: descriptor)
        let layout = try VMDKDescriptor(String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self))
        var files: [any ImageFile] = []
        var extents: [ExtentMap.Extent] = []
        var places: [String: Int] = [:]
        for extent in layout.extents {
            guard extent.access != .none else {
                extents.append(.init(.unknown, count: extent.count))
                continue
            }
            guard let (name, offset) = extent.file else {
                extents.append(.init(.zeros, count: extent.count))
                continue
            }
            guard isAnyFile || Self.isOwn(name, of: descriptor.path) else {
                throw .invalid(
                    "has the extent '\(name.printable)', which has not its name and place and is"
                        + " opened only with backing_files=on")
            }
            let isWritable = extent.access == .readWrite && !descriptor.isReadOnly
            let place: Int
            // A file may serve more than one extent, but is locked only once.
            if let known = places[name] {
                place = known
            } else {
                let path = Self.resolve(name, besides: descriptor.path)
                do throws(ImageError) {
                    files.append(try openExtent(path, !isWritable))
                } catch {
                    throw .invalid("cannot use its extent '\(name.printable)': \(error)")
                }
                place = files.count - 1
                places[name] = place
            }
            try Self.requireRoom(files[place], name, upTo: offset, extent.count)
            extents.append(
                .init(
                    .data(
                        file: place, offset: offset,
                        isWritable: isWritable && !files[place].isReadOnly),
                    count: extent.count))
        }
        self.descriptor = descriptor
        self.files = files
        self.extents = ExtentMap(fixed: extents)
        byteCount = layout.byteCount
        isReadOnly = descriptor.isReadOnly
        if !isReadOnly { try Self.renewContentID(in: bytes, of: descriptor) }
    }

    private static func bytes(of descriptor: any ImageFile) throws(ImageError) -> [UInt8] {
        let bytes = try hosted { () throws(HostError) in
            let start = try descriptor.bytes(at: 0, count: 4) ?? []
            guard !start.starts(with: "KDMV".utf8) else { return nil as [UInt8]? }
            let count = try descriptor.byteCount()
            guard count <= UInt64(VMDKDescriptor.byteLimit) else { return [] }
            return try descriptor.bytes(at: 0, count: Int(count))
        }
        guard let bytes else { throw .unsupported("a sparse VMDK extent") }
        guard !bytes.isEmpty else { throw .corrupt("its descriptor is larger than 256 KiB") }
        return bytes
    }

    /// A delta link of somebody else's names the contents that it was made on: after a change they
    /// must have another name. In place, so that no other byte of the descriptor is at risk.
    private static func renewContentID(
        in bytes: [UInt8], of descriptor: any ImageFile
    ) throws(ImageError) {
        let key = Array("\nCID=".utf8)
        guard let start = bytes.indices.first(where: { bytes[$0...].starts(with: key) }) else {
            return
        }
        let digits = "0123456789abcdef".utf8
        let place = start + key.count
        let old = bytes[place...].prefix(8).prefix { Character(UnicodeScalar($0)).isHexDigit }
        let new = old.map { _ in digits.randomElement() ?? UInt8(ascii: "0") }
        try hosted { () throws(HostError) in
            try descriptor.write(new, at: UInt64(place))
            try descriptor.synchronize()
        }
    }

    private static func resolve(_ name: String, besides path: String) -> String {
        guard !name.hasPrefix("/"), let slash = path.lastIndex(of: "/") else { return name }
        return path[...slash] + name
    }

    /// Whether an extent's name is one that VMware and QEMU give to the files of the disk at
    /// `path`: `disk-flat.vmdk`, or `disk-f001.vmdk` and so on, for `disk.vmdk`.
    private static func isOwn(_ name: String, of path: String) -> Bool {
        let start = "\(base(of: path))-"
        guard name.hasPrefix(start), name.hasSuffix(".vmdk") else { return false }
        let kind = name.dropFirst(start.count).dropLast(".vmdk".count)
        let number = kind.dropFirst()
        return kind == "flat"
            || kind.hasPrefix("f") && !number.isEmpty
                && number.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }

    private static func requireRoom(
        _ file: any ImageFile, _ name: String, upTo offset: UInt64, _ count: UInt64
    ) throws(ImageError) {
        let size = try hosted { () throws(HostError) in try file.byteCount() }
        guard offset <= size, count <= size - offset else {
            throw .corrupt("its extent '\(name.printable)' is shorter than the descriptor says")
        }
    }

    package func locate(at offset: UInt64, limit: UInt64) throws(ImageError) -> ExtentMap.Extent {
        let extent = extents.extent(at: offset, limit: limit)
        guard extent.place != .unknown else {
            throw .host(HostError("use an extent without access", code: HostError.ioCode))
        }
        return extent
    }

    /// What is not writable in a flat image never will be.
    package func makeRoom(at offset: UInt64) throws(ImageError) {
        throw .host(HostError("write to a read-only extent", code: HostError.ioCode))
    }

    package func flush() throws(ImageError) {
        for file in files where !file.isReadOnly {
            try hosted { () throws(HostError) in try file.synchronize() }
        }
    }

    package func resize(to byteCount: UInt64) throws(ImageError) {
        throw .invalid("a VMDK cannot be resized; convert it")
    }

    package func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck {
        throw .invalid("a flat VMDK has no structure to check")
    }

    package func close() throws(ImageError) { if !isReadOnly { try flush() } }

    // MARK: creation

    /// Makes a flat VMDK of `descriptor`, whose contents are lost, with its data in one file or,
    /// `isSplit`, in files of 2 GiB beside it, which `createExtent` makes and which are emptied.
    package static func create(
        on descriptor: any ImageFile, byteCount: UInt64, isSplit: Bool,
        createExtent: (_ path: String) throws(ImageError) -> any ImageFile
    ) throws(ImageError) {
        let pieceLimit: UInt64 = isSplit ? 2 << 30 : .max
        guard byteCount > 0, byteCount % 512 == 0, byteCount < 1 << 62,
            (byteCount - 1) / pieceLimit < VMDKDescriptor.extentLimit
        else {
            throw .invalid("a flat VMDK is whole sectors of 512 bytes, in at most 1024 files")
        }
        var extents: [(name: String, count: UInt64)] = []
        var done: UInt64 = 0
        while done < byteCount {
            let count = min(pieceLimit, byteCount - done)
            let name = extentName(descriptor.path, isSplit ? extents.count + 1 : nil)
            let file = try createExtent(resolve(name, besides: descriptor.path))
            try hosted { () throws(HostError) in
                try file.resize(to: 0)
                try file.resize(to: count)
            }
            extents.append((name, count))
            done += count
        }
        let text = VMDKDescriptor.text(
            createType: VMDKDescriptor.createTypes[isSplit ? 1 : 0], extents: extents)
        try hosted { () throws(HostError) in
            try descriptor.resize(to: 0)
            try descriptor.write(Array(text.utf8), at: 0)
            try descriptor.synchronize()
        }
    }

    /// `disk.vmdk`'s data lie in `disk-flat.vmdk`, or in `disk-f001.vmdk` and so on.
    private static func extentName(_ path: String, _ number: Int?) -> String {
        let base = base(of: path)
        guard let number else { return "\(base)-flat.vmdk" }
        let digits = String(number)
        return "\(base)-f\(String(repeating: "0", count: max(0, 3 - digits.count)))\(digits).vmdk"
    }

    /// The disk's name, without folder and ending.
    private static func base(of path: String) -> Substring {
        var base = path[...]
        if let slash = path.lastIndex(of: "/") { base = path[path.index(after: slash)...] }
        return base.hasSuffix(".vmdk") ? base.dropLast(5) : base
    }
}
