import Foundation
import Testing
import VMMHost
import VMMStorage
import VMMTestSupport

@Suite("VMDKImage")
struct VMDKImageTests {
    let directory: TemporaryDirectory
    let path: String

    init() throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk.vmdk")
    }

    private func open(
        isReadOnly: Bool = false, lock: HostFile.Lock = .none
    ) throws -> any DiskImage {
        var options = ImageOptions()
        options.isReadOnly = isReadOnly
        options.lock = lock
        return try ImageOpener.open(path: path, options)
    }

    private static func descriptor(_ lines: String, type: String = "monolithicFlat") -> String {
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
            + "createType=\"\(type)\"\n\n\(lines)\n\nddb.adapterType = \"ide\"\n"
    }

    /// A descriptor in memory whose extents are all one file of 4 KiB.
    private static func open(_ text: String) throws(ImageError) -> VMDKImage {
        try VMDKImage(MemoryFile(Array(text.utf8), path: "disk.vmdk"), isAnyFile: true) {
            path, isReadOnly in
            let file = MemoryFile(Array(repeating: 7, count: 4096), path: path)
            file.isReadOnly = isReadOnly
            return file
        }
    }

    private func refusal(_ text: String) -> String {
        do throws(ImageError) {
            _ = try Self.open(text)
            return ""
        } catch {
            return error.description
        }
    }

    @Test(
        "what QEMU makes is written and read as QEMU reads it",
        arguments: ["monolithicFlat", "twoGbMaxExtentFlat"])
    func differential(subformat: String) throws {
        try QEMU.run(
            "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=" + subformat, path, "5M")
        var workload = ImageWorkload(seed: 1, model: [UInt8](repeating: 0, count: 5 << 20))

        for _ in 0..<3 {
            let image = try open()
            #expect(try contents(of: image) == workload.model)
            try workload.run(60, longest: 1 << 19, on: image)
            try image.close()
        }

        try QEMU.expect(path, format: "vmdk", holds: workload.model)
    }

    @Test("an image of two extents of 2 GiB is one disk, for QEMU too")
    func split() throws {
        let byteCount: UInt64 = 3 << 30
        try Data().write(to: URL(filePath: path))
        do {
            let descriptor = try HostFile(path: path, isReadOnly: false, lock: .none)
            try VMDKImage.create(on: descriptor, byteCount: byteCount, isSplit: true) {
                path throws(ImageError) in
                _ = FileManager.default.createFile(atPath: path, contents: nil)
                return try HostFile(path: path, isReadOnly: false, lock: .none)
            }
        }
        do {
            let image = try open()
            #expect(image.byteCount == byteCount && image.files.count == 2)
            try image.write([UInt8](repeating: 9, count: 1024).span, at: 2 << 30 - 512)
            try image.close()
        }

        let read = try QEMU.run(
            "qemu-io", "-r", "-f", "vmdk", "-c", "read -P 9 2147483136 1024",
            "-c", "read -P 0 2147484160 1M", path)
        #expect(read.status == 0 && !read.output.contains("failed"), "\(read.output)")
        #expect(FileManager.default.fileExists(atPath: directory.file("disk-f002.vmdk")))
    }

    @Test("extents have their own offsets and rights")
    func access() throws {
        let image = try Self.open(
            Self.descriptor(
                "RW 2 FLAT \"a b.vmdk\" 3\nRDONLY 1 FLAT \"/c\" 0\nRW 1 ZERO\n"
                    + "NOACCESS 1 FLAT \"gone\" 0\nRW 1 FLAT \"a b.vmdk\""))
        #expect(image.byteCount == 6 * 512)
        #expect(image.files.map(\.path) == ["a b.vmdk", "/c"])

        try image.write([1, 2].span, at: 1022)
        #expect(try bytes(of: image, 1020..<1024) == [7, 7, 1, 2])
        #expect(try bytes(of: image, 1535..<1537) == [7, 0])
        #expect(throws: ImageError.self) { try image.write([1].span, at: 1024) }
        #expect(throws: ImageError.self) { try image.write([1].span, at: 1536) }
        #expect(throws: ImageError.self) { _ = try bytes(of: image, 2048..<2049) }
        #expect(image.extents.extent(at: 2048, limit: 4).place == .unknown)
        #expect(
            image.extents.extent(at: 1, limit: 4).place
                == .data(file: 0, offset: 3 * 512 + 1, isWritable: true))
        #expect(try bytes(of: image, 2560..<2561) == [7])
    }

    @Test("an image opened for writing gets a new content identifier, and nothing else changes")
    func contentID() throws {
        let text = Self.descriptor("RW 8 ZERO")
        let file = MemoryFile(Array(text.utf8))
        let noFile: VMDKImage.OpenExtent = { _, _ in MemoryFile() }
        file.isReadOnly = true
        _ = try VMDKImage(file, isAnyFile: true, openExtent: noFile)
        #expect(file.bytes == Array(text.utf8))

        file.isReadOnly = false
        _ = try VMDKImage(file, isAnyFile: true, openExtent: noFile)

        let renewed = String(decoding: file.bytes, as: UTF8.self)
        let line = try #require(renewed.split(separator: "\n").first { $0.hasPrefix("CID=") })
        #expect(line != "CID=12345678" && line.count == 12)
        #expect(renewed.replacing(line, with: "CID=12345678") == text)
    }

    @Test(
        "a descriptor names only what was made with it, unless it is allowed any file",
        arguments: [
            "/etc/shadow", "../disk-flat.vmdk", "other.raw", "disk-flat.vmdk/../x-flat.vmdk",
            "sub/disk-flat.vmdk", "disk-f001.vmdk", "disk-f002.vmdk", "disk-other-flat.vmdk",
        ])
    func choosesNoFile(name: String) throws {
        try Data(count: 4096).write(to: URL(filePath: directory.file("other.raw")))
        try FileManager.default.createSymbolicLink(
            atPath: directory.file("disk-f001.vmdk"), withDestinationPath: "other.raw")
        try Data(count: 4096).write(to: URL(filePath: directory.file("disk-other-flat.vmdk")))
        #expect(mkfifo(directory.file("disk-f002.vmdk"), 0o600) == 0)
        try Data(Self.descriptor("RW 8 FLAT \"\(name)\" 0").utf8).write(to: URL(filePath: path))
        #expect(throws: ImageError.self) { _ = try ImageOpener.open(path: path, ImageOptions()) }
        guard name == "other.raw" else { return }
        var options = ImageOptions()
        options.allowsBackingFiles = true
        #expect(try ImageOpener.open(path: path, options).byteCount == 4096)
    }

    @Test("a name is relative to the descriptor's directory")
    func relative() throws {
        let text = Self.descriptor("RW 8 FLAT \"sub/x\" 0")
        let image = try VMDKImage(
            MemoryFile(Array(text.utf8), path: "/some/where/d.vmdk"), isAnyFile: true
        ) {
            path, _ in MemoryFile(Array(repeating: 7, count: 4096), path: path)
        }
        #expect(image.files[0].path == "/some/where/sub/x")
    }

    @Test("a second writer is refused at the descriptor and at the extents")
    func locks() throws {
        try QEMU.run(
            "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "1M")
        let writer = try open(lock: .whole)
        #expect(throws: ImageError.self) { _ = try open(isReadOnly: true, lock: .whole) }
        #expect(throws: ImageError.self) {
            _ = try HostFile(path: directory.file("disk-flat.vmdk"), isReadOnly: true)
        }
        withExtendedLifetime(writer) {}
    }

    @Test("what is no sound flat VMDK is refused in a sentence that says why")
    func refuses() throws {
        let fits = "RW 8 FLAT \"x\" 0"
        let sound = Self.descriptor(fits)
        #expect(refusal(sound) == "")
        #expect(
            refusal(sound.replacing("ffffffff", with: "00000001"))
                == "uses a parent image (a delta link of VMDK), which Swiftlet does not support")
        #expect(
            refusal(Self.descriptor(fits, type: "streamOptimized"))
                == "uses the VMDK type streamOptimized, which Swiftlet does not support")
        #expect(
            refusal(Self.descriptor("RW 8 SPARSE \"x\""))
                == "uses a VMDK extent of type SPARSE, which Swiftlet does not support")
        #expect(
            refusal("KDMV\u{1}\0\0\0")
                == "uses a sparse VMDK extent, which Swiftlet does not support")
        #expect(
            refusal(Self.descriptor("RW 9 FLAT \"x\" 0"))
                == "is damaged: its extent 'x' is shorter than the descriptor says")
        #expect(refusal(Self.descriptor("")) == "is damaged: its descriptor names no extent")
        #expect(
            refusal(String(repeating: " ", count: 300_000))
                == "is damaged: its descriptor is larger than 256 KiB")
        let many = String(repeating: "RW 1 ZERO\n", count: 1025)
        #expect(
            refusal(Self.descriptor(many))
                == "is damaged: its extents are more than any disk has")
    }

    @Test(
        "numbers and names that nobody writes are refused",
        arguments: [
            "RW 0 FLAT \"x\" 0", "RW -1 FLAT \"x\" 0", "RW 99999999999999999999 FLAT \"x\" 0",
            "RW 18014398509481983 FLAT \"x\" 0", "RW 8 FLAT \"x\" 18014398509481983",
            "RW 8 FLAT x 0", "RW 8 FLAT \"\" 0", "RW 8 FLAT \"x 0", "RW 8 FLAT", "RW 8", "RW",
            "RW 8 FLAT \"x\" 0 0", "RW 8 FLAT \"\u{0}\" 0",
        ])
    func numbers(line: String) {
        #expect(throws: ImageError.self) { try Self.open(Self.descriptor(line)) }
    }

    @Test("no change of the descriptor makes it trap, hang or grow")
    func hostile() {
        let text = Self.descriptor("RW 4 FLAT \"x\" 1\nRDONLY 2 FLAT \"y\" 0\nRW 3 ZERO")
        let attack = ImageAttack(
            image: Array(text.utf8), structures: [0..<text.utf8.count], seal: { _ in },
            open: { file throws(ImageError) in
                try VMDKImage(file, isAnyFile: true) { _, _ in
                    MemoryFile(Array(repeating: 7, count: 4096))
                }
            })
        #expect(attack.run(2000, seed: 1) > 100)
    }
}
