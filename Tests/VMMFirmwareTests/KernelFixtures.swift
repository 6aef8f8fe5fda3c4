import VMMBase

@testable import VMMFirmware

/// A small ELF file like vmlinux: two segments to load and one of notes.
enum SampleELF {
    static let entry: UInt32 = 0x100_0040
    static let segmentAddress: UInt64 = 0x100_0000
    static let segmentBytes: UInt64 = 0x100
    static let dataAddress: UInt64 = 0x200_0000
    static let dataFileBytes: UInt64 = 0x80
    static let dataMemoryBytes: UInt64 = 0x4000

    /// Offsets in the file: the header has 64 bytes, each of three program headers 56.
    static let programHeaders = 64
    static let notes = 0x100
    static let code = 0x200
    static let data = 0x300

    static func note(owner: String, type: UInt32, _ content: [UInt8]) -> [UInt8] {
        var note = ByteBuilder()
        note.append(UInt32(owner.utf8.count + 1))
        note.append(UInt32(content.count))
        note.append(type)
        note.append(bytes: Array(owner.utf8) + [0])
        note.align(to: 4)
        note.append(bytes: content)
        note.align(to: 4)
        return note.bytes
    }

    static let defaultNotes =
        note(owner: "GNU", type: 3, [1, 2, 3, 4, 5]) + note(owner: "Xen", type: 1, [9, 9])
        + note(owner: "Xen", type: 18, bytes(entry))

    static func programHeader(
        type: UInt32, offset: Int, address: UInt64, fileBytes: UInt64, memoryBytes: UInt64
    ) -> [UInt8] {
        bytes(type) + bytes(UInt32(5)) + bytes(UInt64(offset))
            + bytes(UInt64(0xffff_ffff_8000_0000))
            + bytes(address) + bytes(fileBytes) + bytes(memoryBytes) + bytes(UInt64(4))
    }

    static func make(notes noteBytes: [UInt8] = defaultNotes) -> [UInt8] {
        var file = ByteBuilder([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
        file.appendZeros(9)
        file.append(UInt16(2))  // executable
        file.append(UInt16(62))  // x86-64
        file.append(UInt32(1))
        file.append(UInt64(0))  // the ELF entry is not the PVH entry
        file.append(UInt64(programHeaders))
        file.appendZeros(12)
        file.append(UInt16(64))
        file.append(UInt16(56))
        file.append(UInt16(3))
        file.appendZeros(6)
        file.append(
            bytes: programHeader(
                type: 1, offset: code, address: segmentAddress, fileBytes: segmentBytes,
                memoryBytes: segmentBytes))
        file.append(
            bytes: programHeader(
                type: 1, offset: data, address: dataAddress, fileBytes: dataFileBytes,
                memoryBytes: dataMemoryBytes))
        file.append(
            bytes: programHeader(
                type: 4, offset: notes, address: 0, fileBytes: UInt64(noteBytes.count),
                memoryBytes: UInt64(noteBytes.count)))
        file.appendZeros(notes - file.count)
        file.append(bytes: noteBytes)
        file.appendZeros(data + Int(dataFileBytes) - file.count)
        return file.bytes
    }

    /// The file with the notes that Linux has.
    static let file = make()

    static var kernel: KernelImage {
        get throws { try KernelImage.parse(MemoryImage(file)) }
    }
}

/// A small bzImage like Debian's: protocol 2.15, one setup sector, 4 KiB of kernel.
enum SampleBzImage {
    static let payloadOffset = 1024
    static let payloadBytes = 0x1000
    static let headerEnd = 0x26c
    static let preferredAddress: UInt64 = 0x100_0000
    static let initBytes: UInt32 = 0x200_0000
    static let commandLineLimit: UInt32 = 2047
    static let initramfsLast: UInt32 = 0x7fff_ffff

    static let file =
        [UInt8](repeating: 0, count: payloadOffset + payloadBytes)
        .replacing(at: 0x1f1, with: [1])
        .replacing(at: 0x1f4, with: bytes(UInt32(payloadBytes / 16)))
        .replacing(at: 0x1fe, with: [0x55, 0xaa, 0xeb, UInt8(headerEnd - 0x202)])
        .replacing(at: 0x202, with: Array("HdrS".utf8) + bytes(UInt16(0x20f)))
        .replacing(at: 0x211, with: [1])
        .replacing(at: 0x214, with: bytes(UInt32(0x10_0000)))
        .replacing(at: 0x22c, with: bytes(initramfsLast))
        .replacing(at: 0x230, with: bytes(UInt32(0x20_0000)) + [1, 21])
        .replacing(at: 0x236, with: bytes(UInt16(0x7f)) + bytes(commandLineLimit))
        .replacing(at: 0x258, with: bytes(preferredAddress) + bytes(initBytes))

    static var kernel: KernelImage {
        get throws { try KernelImage.parse(MemoryImage(file)) }
    }
}

/// Parses a file that the test knows to be a bzImage.
func parseBzImage(_ content: [UInt8]) throws -> BzImage {
    let image = MemoryImage(content)
    let start = try image.fields(
        of: "start", at: 0, count: min(image.byteCount, BzImage.headerSearchBytes),
        limit: content.count)
    return try BzImage(start, image)
}

/// Writes zero, one and the largest values of every width to `offset` of `file`, and boots each.
func bootExtremes(_ file: [UInt8], at offset: Int, layout: GuestMemoryLayout) {
    for width in [1, 2, 4, 8] {
        let fills: [UInt8] = [0, 0xff, 0x7f, 0x80]
        let one = [1] + [UInt8](repeating: 0, count: width - 1)
        for value in fills.map({ [UInt8](repeating: $0, count: width) }) + [one] {
            bootSucceeds(file.replacing(at: offset, with: value), layout: layout)
        }
    }
}

/// The error of a parse; an image that parses is a failed test by way of the empty answer.
func parseError(_ content: [UInt8]) -> KernelImageError? {
    do {
        _ = try KernelImage.parse(MemoryImage(content))
        return nil
    } catch {
        return error
    }
}

/// Parses, and plans with what was parsed; says whether both went well. It never traps.
@discardableResult
func bootSucceeds(_ content: [UInt8], layout: GuestMemoryLayout) -> Bool {
    guard let kernel = try? KernelImage.parse(MemoryImage(content)) else { return false }
    let planner = BootPlanner(layout: layout, tables: [])
    return (try? planner.plan(kernel: kernel, initramfsBytes: 1 << 20, commandLine: "quiet")) != nil
}
