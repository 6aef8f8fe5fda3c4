import Foundation
import Testing

/// What the tool does with qcow2 images, held against qemu-img.
@Suite("swiftlet image, qcow2")
struct QCOW2CommandTests: ToolSuite {
    let directory: ToolDirectory
    private let path: String

    init() throws {
        directory = try ToolDirectory()
        path = directory.path + "/disk.qcow2"
    }

    /// What both tools say of a qcow2 image, as one sentence.
    private func features(_ report: [String: Any]) throws -> String {
        let specific = try #require(report["format-specific"] as? [String: Any])
        let data = try #require(specific["data"] as? [String: Any])
        let names = ["compat", "refcount-bits", "lazy-refcounts"]
        return names.map { "\($0) \(data[$0] ?? "none")" }.joined(separator: ", ")
            + ", \(data["compression-type"] ?? "none"), \(report["cluster-size"] ?? "none")"
    }

    @Test(
        "create takes qemu-img's options, and info says what qemu-img says",
        arguments: [
            "cluster_size=4k", "compat=1.1,refcount_bits=1", "refcount_bits=64",
            "compression_type=zstd", "lazy_refcounts=on", "cluster_size=2M,preallocation=metadata",
        ])
    func options(_ options: String) throws {
        let theirs = file("qemu.qcow2")
        try qemu("create", "-q", "-f", "qcow2", "-o", options, theirs, "20M")

        let made = try image("create", "-f", "qcow2", "-o", options, path, "20M")

        #expect(made.status == 0 && made.error == "")
        let expected = try features(try qemu("info", "--output=json", theirs).json())
        #expect(try features(try qemu("info", "--output=json", path).json()) == expected)
        #expect(try features(try image("info", "--json", path).json()) == expected)
        #expect(try qemu("check", path).status == 0)
        #expect(try qemu("compare", path, theirs).status == 0)
    }

    @Test("version 2 has no compression type to show beside QEMU's")
    func version2() throws {
        _ = try image("create", "-f", "qcow2", "-o", "compat=0.10", path, "1M")

        let report = try qemu("info", "--output=json", path).json()

        let specific = try #require(report["format-specific"] as? [String: Any])
        #expect((specific["data"] as? [String: Any])?["compat"] as? String == "0.10")
        #expect(try image("info", path).output.contains("compat: 0.10\n"))
    }

    /// A chain of three: raw, qcow2, qcow2, each with data of its own. Returns its top.
    private func makeChain() throws -> String {
        _ = try makeDisk()
        let (middle, top) = (file("middle.qcow2"), file("top.qcow2"))
        #expect(
            try image("create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", middle).status == 0)
        #expect(
            try image("create", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", top, "10M")
                .status == 0)
        for (path, bytes) in [(middle, "write -P 1 64k 100k"), (top, "write -z 3M 1M")] {
            #expect(try run("qemu-io", ["-c", bytes, path]).status == 0)
        }
        return top
    }

    @Test("an image on another one has its size, and is found beside it")
    func backs() throws {
        let top = try makeChain()

        let middle = try qemu("info", "--output=json", file("middle.qcow2")).json()
        let report = try image("info", "--json", top).json()

        #expect(middle["virtual-size"] as? Int == 9 << 20 + 512)
        #expect(middle["backing-filename-format"] as? String == "raw")
        #expect(report["backing-filename"] as? String == "middle.qcow2")
        #expect(report["full-backing-filename"] as? String == file("middle.qcow2"))
    }

    @Test(
        "convert makes one image of a chain",
        arguments: [["-O", "raw"], ["-O", "qcow2"], ["-c", "-O", "qcow2"], ["-O", "vhdx"]])
    func flattens(words: [String]) throws {
        let top = try makeChain()
        let target = file("flat")

        let outcome = try image(["convert"] + words + [top, target])

        #expect(outcome.status == 0 && outcome.error == "")
        #expect(try qemu("compare", "-F", words[words.count - 1], top, target).status == 0)
        #expect(try image("info", "--json", target).json()["backing-filename"] == nil)
    }

    @Test(
        "convert -c packs what can be packed",
        arguments: ["", "cluster_size=512", "compression_type=zstd,cluster_size=4k", "compat=0.10"])
    func packs(options: String) throws {
        let raw = file("text.raw")
        var bytes = Data("all work and no play ".utf8.prefix(16))
        for _ in 0..<17 { bytes += bytes }
        var generator = SystemRandomNumberGenerator()
        for index in 0..<100_000 {
            bytes[300_000 + index] = .random(in: 0...255, using: &generator)
        }
        bytes.replaceSubrange(900_000..<1_200_000, with: Data(count: 300_000))
        try (bytes + Data(repeating: 5, count: 512)).write(to: URL(filePath: raw))

        let outcome = try image("convert", "-c", "-O", "qcow2", "-o", options, raw, path)

        #expect(outcome.status == 0 && outcome.error == "")
        #expect(try qemu("check", path).status == 0)
        #expect(try qemu("compare", "-F", "raw", path, raw).status == 0)
        let size = try #require(FileManager.default.contents(atPath: path)?.count)
        #expect(size < bytes.count / 2)
        #expect(try image("convert", "-O", "raw", path, file("back")).status == 0)
        #expect(FileManager.default.contentsEqual(atPath: raw, andPath: file("back")))
    }

    @Test("what QEMU compressed is read", arguments: ["zlib", "zstd"])
    func unpacks(type: String) throws {
        let raw = try makeDisk()
        try qemu(
            "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", "compression_type=\(type)", raw, path
        )

        #expect(try image("convert", "-O", "raw", path, file("back")).status == 0)

        #expect(FileManager.default.contentsEqual(atPath: raw, andPath: file("back")))
    }

    @Test("resize makes the disk longer, by or to a size, and never shorter")
    func resizes() throws {
        let raw = try makeDisk()
        _ = try image("convert", "-O", "qcow2", "-o", "cluster_size=512", raw, path)

        #expect(try image("resize", path, "+1M").status == 0)
        #expect(try image("resize", path, "300M").status == 0)
        let refused = try image("resize", "--shrink", path, "1M")

        #expect(refused.status == 1)
        #expect(refused.error == "Error: '\(path)': a qcow2 image cannot be made smaller\n")
        #expect(try image("info", path).output.contains("300 MiB (314572800 bytes)"))
        try qemu("resize", "-f", "raw", raw, "300M")
        #expect(try qemu("compare", "-F", "raw", path, raw).status == 0)
        #expect(try qemu("check", path).status == 0)
    }

    // MARK: check

    /// Changes counts in the first refcount block.
    private func setRefcounts(_ clusters: Range<Int>, to count: UInt8) throws {
        var data = try Data(contentsOf: URL(filePath: path))
        func number(_ offset: Int) -> Int {
            data[offset..<offset + 8].reduce(0) { $0 << 8 | Int($1) }
        }
        let block = number(number(48))
        for cluster in clusters { data[block + cluster * 2 + 1] = count }
        data += Data(count: max(0, clusters.upperBound * 4096 - data.count))
        try data.write(to: URL(filePath: path))
    }

    /// 4 MiB in clusters of 4 KiB, of which the first MiB has data.
    private func make() throws {
        try qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, "4M")
        #expect(try run("qemu-io", ["-c", "write -P 1 0 1M", path]).status == 0)
    }

    @Test("a sound image has status 0, before and after a repair")
    func sound() throws {
        try make()

        for words in [[], ["-r", "leaks"], ["--repair", "all"]] {
            #expect(try image(["check"] + words + [path]).status == 0)
        }
    }

    @Test("leaks have status 3 and are mended", arguments: ["leaks", "all"])
    func leaks(repair: String) throws {
        try make()
        try setRefcounts(500..<510, to: 1)

        #expect(try image("check", path).status == 3)
        #expect(try qemu("check", path).status == 3)
        let mended = try image("check", "--json", "--repair", repair, path)

        #expect(mended.status == 0)
        #expect(try mended.json()["leaks-fixed"] as? Int == 10)
        #expect(try image("check", path).status == 0)
        #expect(try qemu("check", path).status == 0)
    }

    @Test("corruptions have status 2, and are mended only when all is to be mended")
    func corruptions() throws {
        try make()
        try setRefcounts(100..<110, to: 0)

        let found = try image("check", "--json", path)
        #expect(found.status == 2)
        #expect(try qemu("check", path).status == 2)
        let theirs = try qemu("check", "--output=json", path).json()
        #expect(try found.json()["image-end-offset"] as? Int == theirs["image-end-offset"] as? Int)
        #expect(try image("check", "--repair", "leaks", path).status == 2)
        #expect(try image("check", "--repair", "all", path).status == 0)

        #expect(try qemu("check", path).status == 0)
        #expect(try run("qemu-io", ["-c", "read -P 1 0 1M", path]).status == 0)
    }

    @Test("an image that is marked as damaged can be looked at and mended")
    func marked() throws {
        try make()
        var data = try Data(contentsOf: URL(filePath: path))
        data[79] |= 2
        try data.write(to: URL(filePath: path))

        #expect(try image("info", path).output.contains("is marked as damaged"))
        #expect(try image("resize", path, "+1M").status == 1)
        #expect(try image("check", "-r", "all", path).status == 0)

        #expect(try image("resize", path, "+1M").status == 0)
    }

    @Test("what is no image has status 1, and a raw one 63")
    func uncheckable() throws {
        try Data("QFI\u{fb}".unicodeScalars.map { UInt8($0.value) } + [0, 0, 0, 9])
            .write(to: URL(filePath: path))

        #expect(try image("check", path).status == 1)
        #expect(try image("check", try makeDisk()).status == 63)
        #expect(try image("check", "-r", "all", try makeDisk()).status == 63)
    }

    @Test("an image without its backing file is looked at and checked, not converted")
    func orphan() throws {
        let top = try makeChain()
        try FileManager.default.removeItem(atPath: file("disk.raw"))
        let middle = file("middle.qcow2")

        #expect(try image("info", middle).status == 0)
        #expect(try image("check", middle).status == 0)
        let refused = try image("convert", "-O", "raw", top, file("flat"))

        #expect(refused.status == 1 && !FileManager.default.fileExists(atPath: file("flat")))
        #expect(refused.error.hasPrefix("Error: '\(top)': the backing file '\(middle)': the back"))
    }

    @Test("what cannot be made is refused in a sentence, and nothing is left behind")
    func refuses() throws {
        let raw = try makeDisk()
        func refusal(_ arguments: String...) throws -> String {
            let outcome = try image(["create", "-f", "qcow2"] + arguments)
            #expect(outcome.status == 1 && outcome.output == "")
            #expect(!FileManager.default.fileExists(atPath: path))
            return outcome.error
        }

        #expect(try refusal(path) == "Error: '\(path)': needs a size\n")
        #expect(
            try refusal("-b", raw, path) == "Error: -b FILE and -F FORMAT go together\n")
        #expect(
            try refusal("-b", "none", "-F", "raw", path)
                == "Error: '\(path)': the backing file '\(file("none"))': "
                + "No such file or directory\n")
        #expect(
            try refusal("-o", "cluster_size=5", path, "1M")
                == "Error: '\(path)': a cluster is a power of two between 512 bytes and 2 MiB\n")
        #expect(
            try refusal("-o", "compat=2", path, "1M")
                == "Error: '\(path)': compat is '2' but can be 0.10 or 1.1 or v2 or v3\n")
        #expect(
            try refusal("-b", raw, "-F", "raw", "-o", "preallocation=metadata", path)
                == "Error: '\(path)': an image with a backing file cannot be preallocated\n")
        let itself = try image("create", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", raw)
        #expect(itself.status == 1 && FileManager.default.contents(atPath: raw)?.first == 7)
    }
}
