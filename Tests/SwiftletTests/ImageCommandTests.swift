import Foundation
import Testing

/// The built tool, held against qemu-img.
@Suite("swiftlet image")
struct ImageCommandTests: ToolSuite {
    let directory: ToolDirectory

    init() throws { directory = try ToolDirectory() }

    struct Kind: CustomTestStringConvertible {
        let format: String
        let qemu: String
        let options: String

        var testDescription: String { "\(format) \(options)" }
        /// QEMU wants no empty options.
        var words: [String] { options.isEmpty ? [] : ["-o", options] }
    }

    static let kinds = [
        Kind(format: "raw", qemu: "raw", options: ""),
        Kind(format: "qcow2", qemu: "qcow2", options: ""),
        Kind(format: "qcow2", qemu: "qcow2", options: "cluster_size=512,compat=0.10"),
        Kind(format: "qcow2", qemu: "qcow2", options: "preallocation=metadata"),
        Kind(format: "vhd", qemu: "vpc", options: "subformat=fixed"),
        Kind(format: "vhd", qemu: "vpc", options: "subformat=dynamic"),
        Kind(format: "vhdx", qemu: "vhdx", options: "subformat=fixed"),
        Kind(format: "vhdx", qemu: "vhdx", options: "subformat=dynamic,block_size=1M"),
        Kind(format: "vmdk", qemu: "vmdk", options: "subformat=monolithicFlat"),
        Kind(format: "vmdk", qemu: "vmdk", options: "subformat=twoGbMaxExtentFlat"),
    ]

    @Test("a disk goes into each format and back, as QEMU reads it", arguments: kinds)
    func converts(kind: Kind) throws {
        let raw = try makeDisk()
        let target = file("target.img")

        let there = try image("convert", "-O", kind.format, "-o", kind.options, raw, target)
        let back = try image("convert", "-f", kind.format, "-O", "raw", target, file("back"))

        #expect(there.status == 0 && there.error == "" && there.output == "")
        #expect(back.status == 0 && back.error == "")
        #expect(try qemu("compare", "-f", kind.qemu, "-F", "raw", target, raw).status == 0)
        #expect(FileManager.default.contentsEqual(atPath: raw, andPath: file("back")))
        let size = try URL(filePath: file("back")).resourceValues(forKeys: [.fileSizeKey]).fileSize
        #expect(size == 9 << 20 + 512)
    }

    @Test("zeros take no room in the new image", arguments: kinds)
    func sparse(kind: Kind) throws {
        let target = file("target.img")
        _ = try image(
            "convert", "-O", kind.format, "-o", kind.options, try makeDisk(), target)

        let info = try image("info", "--json", target)

        let values = try JSONSerialization.jsonObject(with: Data(info.output.utf8))
        let report = try #require(values as? [String: Any])
        #expect(report["format"] as? String == kind.format)
        #expect(report["filename"] as? String == target)
        #expect(report["virtual-size"] as? Int == 9 << 20 + 512)
        #expect(report["actual-size"] as? Int ?? .max < 1 << 20)
    }

    @Test("info says of an image of QEMU's what QEMU says", arguments: kinds)
    func info(kind: Kind) throws {
        let path = file("image")
        try qemu(["create", "-q", "-f", kind.qemu] + kind.words + [path, "20M"])

        let ours = try image("info", "--json", path)
        let theirs = try qemu("info", "-f", kind.qemu, "--output=json", path)

        let reports = try [ours, theirs].map { outcome in
            try #require(
                JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
        }
        #expect(reports[0]["virtual-size"] as? Int == reports[1]["virtual-size"] as? Int)
        #expect(reports[0]["filename"] as? String == path)
        let text = try image("info", path).output
        #expect(text.contains("file format: \(kind.format)\nvirtual size: 20"))
    }

    @Test("what create makes QEMU opens in that size", arguments: kinds)
    func creates(kind: Kind) throws {
        let path = file("new.img")

        let made = try image("create", "-f", kind.format, "-o", kind.options, path, "6M")

        #expect(made.status == 0 && made.error == "")
        let info = try qemu("info", "-f", kind.qemu, path)
        #expect(info.output.contains("6 MiB (6291456 bytes)"), "\(info.output)")
    }

    @Test("check has qemu-img's exit statuses")
    func checks() throws {
        let path = file("image.vhdx")
        _ = try image("create", "-f", "vhdx", "-o", "subformat=fixed,block_size=1M", path, "4M")
        #expect(try image("check", path).status == 0)
        #expect(try image("check", try makeDisk()).status == 63)
        #expect(try image("check", file("missing")).status == 1)

        // The first block's entry in the table, which begins at 3 MiB, gets an unknown state.
        let handle = try FileHandle(forUpdating: URL(filePath: path))
        try handle.seek(toOffset: 3 << 20)
        try handle.write(contentsOf: Data([5]))
        try handle.close()

        let broken = try image("check", "--json", path)
        #expect(broken.status == 2)
        #expect(broken.output.contains("\"corruptions\" : 1,"))
    }

    @Test("a raw image grows, and shrinks only when that is meant")
    func resizes() throws {
        let path = try makeDisk()

        #expect(try image("resize", path, "+1M").status == 0)
        let refused = try image("resize", path, "1M")
        #expect(refused.status == 1)
        #expect(
            refused.error
                == "Error: '\(path)': a smaller size loses data; say --shrink to mean it\n")
        #expect(try image("info", path).output.contains("(10486272 bytes)"))
        #expect(try image("resize", "--shrink", path, "1M").status == 0)
        #expect(try image("info", path).output.contains("1 MiB (1048576 bytes)"))
    }

    @Test(
        "what the parser does not understand is one sentence and status 1",
        arguments: [
            ["create"], ["create", "-f", "odd", "x", "1M"], ["creat"], ["info", "--color", "x"],
            ["resize", "x"], ["check", "-r", "some", "x"],
        ])
    func parses(words: [String]) throws {
        let outcome = try image(words)

        #expect(outcome.status == 1 && outcome.output == "")
        #expect(outcome.error.hasPrefix("Error: ") && outcome.error.hasSuffix("\n"))
        #expect(outcome.error.filter { $0 == "\n" }.count == 1)
    }

    @Test("the progress is shown on standard error when asked for")
    func progress() throws {
        let outcome = try image(
            "convert", "-p", "-O", "raw", try makeDisk(), file("copy"))
        #expect(outcome.output == "" && outcome.error.hasSuffix("100.0 %\n"))
    }

    @Test("a mistake is one sentence and status 1, and harms nothing")
    func refuses() throws {
        let raw = try makeDisk()
        let missing = file("missing")
        func refusal(_ arguments: String...) throws -> String {
            let outcome = try image(arguments)
            #expect(outcome.status == 1 && outcome.output == "")
            return outcome.error
        }

        #expect(
            try refusal("convert", "-O", "raw", missing, file("x"))
                == "Error: '\(missing)': No such file or directory\n")
        #expect(
            try refusal("convert", "-O", "raw", raw, raw)
                == "Error: '\(raw)': is used by somebody else, who writes it or would be "
                + "disturbed by writes\n")
        #expect(
            try refusal("create", "-f", "vhd", file("x"), "4096T")
                == "Error: '\(file("x"))': a VHD holds whole sectors of 512 bytes, at most 2040 GiB\n"
        )
        #expect(
            try refusal("create", "-f", "vmdk", "-o", "color=red", file("x"), "1M")
                == "Error: -o 'color=red': the vmdk format takes subformat=\n")
        #expect(
            try refusal("create", "-f", "vhdx", "-o", "subformat=odd", raw, "1M")
                == "Error: '\(raw)': subformat is 'odd' but can be dynamic or fixed\n")
        #expect(!FileManager.default.fileExists(atPath: file("x")))
        #expect(FileManager.default.contents(atPath: raw)?.count == 9 << 20 + 512)
    }
}
