import Testing
import VMMBase

@testable import VMMFirmware

@Suite("ELFKernel")
struct ELFKernelTests {
    @Test("a kernel's PVH entry and loadable segments are found")
    func sample() throws {
        let kernel = try ELFKernel(MemoryImage(SampleELF.file))

        #expect(kernel.pvhEntry == SampleELF.entry)
        #expect(kernel.segments.map(\.fileOffset) == [0x200, 0x300])
        #expect(kernel.segments.map(\.fileBytes) == [0x100, 0x80])
        #expect(kernel.segments.map(\.memoryBytes) == [0x100, 0x4000])
        #expect(
            kernel.segments.map(\.address) == [GuestAddress(0x100_0000), GuestAddress(0x200_0000)])
    }

    @Test("an entry of eight bytes is taken when it fits in 32 bits")
    func wideEntry() throws {
        let wide = SampleELF.note(owner: "Xen", type: 18, bytes(UInt64(SampleELF.entry)))
        let kernel = try ELFKernel(MemoryImage(SampleELF.make(notes: wide)))
        #expect(kernel.pvhEntry == SampleELF.entry)
    }

    @Test("notes in a segment that is aligned to eight bytes are padded to eight")
    func wideAlignment() throws {
        // Owner "GNU" ends at 16, its five bytes end at 21: the next note is at 24 either way;
        // with nine bytes it is at 28 under an alignment of 4, and at 32 under one of 8.
        let first = SampleELF.note(owner: "GNU", type: 3, [1, 2, 3, 4, 5, 6, 7, 8, 9])
        let notes =
            first + [0, 0, 0, 0] + SampleELF.note(owner: "Xen", type: 18, bytes(SampleELF.entry))
        let alignment = SampleELF.programHeaders + 2 * 56 + 48
        let file = SampleELF.make(notes: notes).replacing(at: alignment, with: bytes(UInt64(8)))

        #expect(try ELFKernel(MemoryImage(file)).pvhEntry == SampleELF.entry)
        #expect(parseError(SampleELF.make(notes: notes)) == .missingPVHNote)
    }

    @Test(
        "a file without a usable PVH note is refused with advice",
        arguments: [
            [], [0xff, 0xff], SampleELF.note(owner: "Xen", type: 17, [0, 0, 0, 1]),
            SampleELF.note(owner: "GNU", type: 18, [0, 0, 0, 1]),
            // The descriptor's size (bytes 4 to 7) passes the segment's end.
            SampleELF.note(owner: "Xen", type: 18, [0, 0, 0, 1]).replacing(at: 4, with: [0xff]),
            [UInt8](repeating: 0xff, count: 64),
        ] as [[UInt8]])
    func missingNote(notes: [UInt8]) {
        let error = parseError(SampleELF.make(notes: notes))
        #expect(error == .missingPVHNote)
        #expect(
            error?.description == "ELF file has no PVH note (Xen note type 18); "
                + "build the kernel with CONFIG_PVH or use the bzImage")
    }

    @Test(
        "an entry that is no address inside a segment is refused",
        arguments: [
            bytes(UInt32(0x10_0000)), bytes(UInt64(1) << 32), [1, 2, 3], [UInt8](),
            bytes(UInt32(0x100_0100)),
        ])
    func badEntry(descriptor: [UInt8]) {
        let file = SampleELF.make(notes: SampleELF.note(owner: "Xen", type: 18, descriptor))
        #expect(parseError(file)?.description.hasPrefix("PVH ") == true)
    }

    @Test(
        "a header field outside its range is named",
        arguments: [
            (4, [1], "ELF class is 0x1, allowed is 2 (64-bit)"),
            (5, [2], "ELF byte order is 0x2, allowed is 1 (little-endian)"),
            (16, [1], "ELF type is 0x1, allowed is 2 (executable) or 3 (position-independent)"),
            (18, [3], "ELF machine is 0x3, allowed is 62 (x86-64)"),
            (54, [55], "ELF program header size is 0x37, allowed is 56"),
            (56, [0], "ELF program header count is 0x0, allowed is 1 to 256"),
            (56, [1, 1], "ELF program header count is 0x101, allowed is 1 to 256"),
        ] as [(Int, [UInt8], String)])
    func badHeader(offset: Int, value: [UInt8], sentence: String) {
        let file = SampleELF.file.replacing(at: offset, with: value)
        #expect(parseError(file)?.description == sentence)
    }

    @Test("a segment with more bytes in the file than in memory is refused")
    func inflatedSegment() {
        let memoryBytes = SampleELF.programHeaders + 40
        let file = SampleELF.file.replacing(at: memoryBytes, with: bytes(UInt64(0xff)))
        #expect(
            parseError(file)
                == .unsupported(
                    field: "file size of the ELF segment at 0x1000000", value: 0x100,
                    allowed: "at most its memory size 0xff"))
    }

    @Test("a segment that passes the end of the address space is refused")
    func wrappingSegment() {
        let address = SampleELF.programHeaders + 24
        let file = SampleELF.file.replacing(at: address, with: bytes(UInt64.max - 0x10))
        #expect(parseError(file)?.description.contains("ends inside the address space") == true)
    }

    @Test("segments that overlap are refused, in whatever order; neighbours are not")
    func overlappingSegments() throws {
        let address = SampleELF.programHeaders + 56 + 24
        func file(dataAt value: UInt64) -> [UInt8] {
            SampleELF.file.replacing(at: address, with: bytes(value))
        }
        let end = SampleELF.segmentAddress + SampleELF.segmentBytes
        #expect(
            parseError(file(dataAt: end - 1))
                == .unsupported(
                    field: "address of an ELF segment", value: end - 1,
                    allowed: "what lies behind the segment at 0x1000000 of 256 bytes"))
        let before = SampleELF.segmentAddress - SampleELF.dataMemoryBytes
        #expect(parseError(file(dataAt: before + 1)) != nil)
        #expect(parseError(file(dataAt: before)) == nil)
        #expect(parseError(file(dataAt: end)) == nil)
    }

    @Test("a segment whose bytes lie past the end of the file is refused as truncated")
    func truncatedSegment() {
        let offset = SampleELF.programHeaders + 8
        let file = SampleELF.file.replacing(at: offset, with: bytes(UInt64.max))
        #expect(
            parseError(file)
                == .truncated(
                    part: "ELF segment at 0x1000000", end: .max, fileBytes: UInt64(file.count)))
    }

    @Test("a note segment that would cost memory is refused")
    func hugeNotes() {
        let fileBytes = SampleELF.programHeaders + 2 * 56 + 32
        let file = SampleELF.file.replacing(at: fileBytes, with: bytes(UInt64(1) << 40))
        #expect(parseError(file)?.description.contains("at most 65536") == true)
    }

    @Test("a file that ends anywhere in its first 512 bytes is refused")
    func truncation() {
        let survivors = (0..<512).filter { parseError(Array(SampleELF.file.prefix($0))) == nil }
        #expect(survivors == [])
    }

    @Test("no header field at zero, one or its maximum traps")
    func extremes() throws {
        let layout = try GuestMemoryLayout(ramBytes: 128 << 20, physicalAddressBits: 46)
        for offset in 0..<SampleELF.code {
            bootExtremes(SampleELF.file, at: offset, layout: layout)
        }
    }

    @Test("random damage to headers and notes never traps")
    func randomDamage() throws {
        let layout = try GuestMemoryLayout(ramBytes: 128 << 20, physicalAddressBits: 46)
        let file = SampleELF.file
        var dice = Dice(seed: 0x5357_4946_544c_4554)
        for _ in 0..<3000 {
            var damaged = file
            for _ in 0..<1 + dice.roll(6) {
                damaged[dice.roll(SampleELF.code)] = UInt8(dice.roll(256))
            }
            bootSucceeds(damaged, layout: layout)
        }
        #expect(bootSucceeds(file, layout: layout))
    }
}
