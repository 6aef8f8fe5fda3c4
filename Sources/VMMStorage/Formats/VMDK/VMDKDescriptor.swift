import VMMBase

/// The text that a flat VMDK begins with: what it is made of (VMware Virtual Disk Format 1.1).
struct VMDKDescriptor {
    enum Access: String {
        case readWrite = "RW"
        case readOnly = "RDONLY"
        case none = "NOACCESS"
    }

    struct Extent {
        let access: Access
        /// In bytes.
        let count: UInt64
        /// nil: reads as zeros.
        let file: (name: String, offset: UInt64)?
    }

    /// 1024 extents of 2 GiB, with names of 100 bytes, and room to spare.
    static let byteLimit = 256 << 10
    static let extentLimit = 1024
    /// As the specification spells them: one file, or pieces of at most 2 GiB.
    static let createTypes = ["monolithicFlat", "twoGbMaxExtentFlat"]

    let extents: [Extent]
    /// The sum of the extents, in bytes.
    let byteCount: UInt64

    init(_ text: String) throws(ImageError) {
        var extents: [Extent] = []
        var byteCount: UInt64 = 0
        var createType: String?
        for line in text.split(whereSeparator: \.isNewline) {
            let line = line.trimmingSpaces
            if line.isEmpty || line.hasPrefix("#") { continue }
            if let (key, value) = Self.setting(line) {
                if key == "createtype" { createType = value }
                if key == "parentcid", value.lowercased() != "ffffffff" {
                    throw .unsupported("a parent image (a delta link of VMDK)")
                }
                continue
            }
            guard let extent = try Self.extent(line) else { continue }
            let (sum, overflows) = byteCount.addingReportingOverflow(extent.count)
            guard !overflows, sum <= UInt64(Int64.max), extents.count < Self.extentLimit else {
                throw .corrupt("its extents are more than any disk has")
            }
            byteCount = sum
            extents.append(extent)
        }
        guard let createType else { throw .corrupt("its descriptor has no createType") }
        guard Self.createTypes.contains(createType) else {
            throw .unsupported("the VMDK type \(createType.printable)")
        }
        guard byteCount > 0 else { throw .corrupt("its descriptor names no extent") }
        self.extents = extents
        self.byteCount = byteCount
    }

    /// `key = "value"`, the key in small letters.
    private static func setting(_ line: Substring) -> (key: String, value: String)? {
        guard let equals = line.firstIndex(of: "=") else { return nil }
        let key = line[..<equals].trimmingSpaces
        guard !key.contains(where: { $0 == " " || $0 == "\"" }) else { return nil }
        let value = line[line.index(after: equals)...].trimmingSpaces
        return (key.lowercased(), String(value.filter { $0 != "\"" }))
    }

    /// `RW 4194304 FLAT "disk-f001.vmdk" 0`; nil: a line of another kind.
    private static func extent(_ line: Substring) throws(ImageError) -> Extent? {
        let words = line.split(separator: " ", maxSplits: 3)
        guard let first = words.first, let access = Access(rawValue: String(first)) else {
            return nil
        }
        guard words.count >= 3, let sectors = UInt64(words[1]), sectors > 0, sectors < 1 << 54
        else { throw .corrupt("the extent '\(String(line).printable)' has no size") }
        switch words[2] {
        case "ZERO":
            return Extent(access: access, count: sectors * 512, file: nil)
        case "FLAT":
            guard words.count == 4, let file = file(words[3].trimmingSpaces) else {
                throw .corrupt(
                    "the extent '\(String(line).printable)' has no file or a wrong offset")
            }
            return Extent(access: access, count: sectors * 512, file: file)
        case let type:
            throw .unsupported("a VMDK extent of type \(String(type).printable)")
        }
    }

    /// `"name" 0`: a file and the sector that the extent begins at.
    private static func file(_ text: Substring) -> (name: String, offset: UInt64)? {
        guard text.hasPrefix("\""), let end = text.dropFirst().firstIndex(of: "\"") else {
            return nil
        }
        let name = text[text.index(after: text.startIndex)..<end]
        let rest = text[text.index(after: end)...].trimmingSpaces
        guard !name.isEmpty, !name.contains("\0"), let sector = rest.isEmpty ? 0 : UInt64(rest),
            sector < 1 << 54
        else { return nil }
        return (String(name), sector * 512)
    }

    /// The text for a new disk of `extents`.
    static func text(createType: String, extents: [(name: String, count: UInt64)]) -> String {
        let sectors = extents.reduce(0) { $0 + $1.count } / 512
        let contentID = String(UInt32.random(in: 1..<UInt32.max), radix: 16)
        let lines = extents.map { "RW \($0.count / 512) FLAT \"\($0.name)\" 0" }
        return """
            # Disk DescriptorFile
            version=1
            CID=\(String(repeating: "0", count: 8 - contentID.count))\(contentID)
            parentCID=ffffffff
            createType="\(createType)"

            # Extent description
            \(lines.joined(separator: "\n"))

            # The Disk Data Base
            #DDB

            ddb.virtualHWVersion = "4"
            ddb.geometry.cylinders = "\(max(1, sectors / (16 * 63)))"
            ddb.geometry.heads = "16"
            ddb.geometry.sectors = "63"
            ddb.adapterType = "ide"

            """
    }
}

extension Substring {
    fileprivate var trimmingSpaces: Substring {
        let start = drop { $0 == " " || $0 == "\t" }
        let end = start.lastIndex { $0 != " " && $0 != "\t" }
        return end.map { start[...$0] } ?? start.prefix(0)
    }
}
