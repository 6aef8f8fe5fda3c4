import VMMHost

/// How an image is opened.
package struct ImageOptions: Sendable {
    /// What the user says the format is; nil: what the content looks like.
    package var format: ImageFormat?
    package var isReadOnly = false
    /// Guest data bypasses the page cache.
    package var isDirect = false
    package var lock = HostFile.Lock.whole
    /// Whether an image may name another one to fall back on, or to consist of if that has not its
    /// own name: a guest, or whoever made an image, must not get at files of his choice by default.
    package var allowsBackingFiles = false
    /// Only the image itself is looked at: what it does not hold reads as zeros.
    package var ignoresBackingFiles = false
    /// To be checked and mended: what else refuses a writable opening is let through.
    package var isForRepair = false
    /// The images above this one in a backing chain; nil for one that is no host file.
    var chain: [Identity?] = []
    /// What this image and those below it may hold in tables that are read as a whole. Those of
    /// 16 TiB in clusters of 64 KiB are 2 MiB.
    var tableByteLimit: UInt64 = 128 << 20

    /// One file of this host, whatever its name.
    struct Identity: Equatable, Sendable {
        let device: UInt64
        let inode: UInt64
    }

    package init() {}
}

/// Finds out what a file holds, and opens it as that.
package enum ImageOpener {
    /// Detection by content, for what lies before the last sector decides before the footer: a
    /// guest can write either, which is why a declared format must agree.
    package static func detect(_ file: any ImageFile) throws(ImageError) -> ImageFormat {
        try hosted { () throws(HostError) in
            let start = try file.bytes(at: 0, count: 8) ?? []
            if start.starts(with: [0x51, 0x46, 0x49, 0xfb]) { return .qcow2 }
            if start.elementsEqual("vhdxfile".utf8) { return .vhdx }
            if start.elementsEqual(footerCookie) { return .vhd }
            if start.starts(with: "KDMV".utf8) { return .vmdk }
            let text = try file.bytes(at: 0, count: descriptorStart.count) ?? []
            if text == descriptorStart { return .vmdk }
            let byteCount = try file.byteCount()
            guard byteCount >= 512 else { return .raw }
            let footer = try file.bytes(at: byteCount - 512, count: 8) ?? []
            return footer == footerCookie ? .vhd : .raw
        }
    }

    private static let footerCookie = Array("conectix".utf8)
    private static let descriptorStart = Array("# Disk DescriptorFile".utf8)

    package static func open(
        path: String, _ options: ImageOptions
    ) throws(ImageError) -> any DiskImage {
        let file = try HostFile(
            path: path, isReadOnly: options.isReadOnly, isDirect: options.isDirect,
            lock: options.lock)
        return try open(file, options)
    }

    /// Opens what lies on `file`, which the image keeps.
    package static func open(
        _ file: any ImageFile, _ options: ImageOptions
    ) throws(ImageError) -> any DiskImage {
        let found = try detect(file)
        if let declared = options.format, declared != found {
            throw .invalid("is declared as \(declared.rawValue) but holds \(found.rawValue)")
        }
        switch found {
        case .raw: return try RawImage(file)
        case .qcow2: return try QCOW2Image(file, options)
        case .vhd: return try VHDImage.open(file)
        case .vmdk:
            return try VMDKImage(file, isAnyFile: options.allowsBackingFiles) {
                path, isReadOnly throws(ImageError) in
                try HostFile(
                    path: path, isReadOnly: isReadOnly, isDirect: options.isDirect,
                    lock: options.lock, isPlain: !options.allowsBackingFiles)
            }
        case .vhdx: return try VHDXImage(file)
        }
    }
}
