import Testing
import VMMBase

@testable import VMMFirmware

@Suite("BzImage")
struct BzImageTests {
    @Test("the setup header's fields are read")
    func sample() throws {
        let image = try parseBzImage(SampleBzImage.file)

        #expect(image.protocolVersion == 0x20f)
        #expect(image.setupHeader.count == SampleBzImage.headerEnd - 0x1f1)
        #expect(image.payload.fileOffset == 1024)
        #expect(image.payload.fileBytes == 0x1000)
        #expect(image.payload.address == GuestAddress(0x10_0000))
        #expect(image.runRange == GuestRange(start: GuestAddress(0x100_0000), count: 0x200_0000))
        #expect(image.commandLineLimit == 2047)
        #expect(image.initramfsLastAddress == GuestAddress(0x7fff_ffff))
    }

    @Test("no setup sectors stand for four")
    func defaultSetupSectors() throws {
        let shift = [UInt8](repeating: 0, count: 4 * 512)
        let image = try parseBzImage(SampleBzImage.file.replacing(at: 0x1f1, with: [0]) + shift)
        #expect(image.payload.fileOffset == 5 * 512)
    }

    @Test("a signature after the kernel is not loaded")
    func signature() throws {
        let image = try parseBzImage(SampleBzImage.file + [1, 2, 3, 4])
        #expect(image.payload.fileBytes == UInt64(SampleBzImage.payloadBytes))
    }

    @Test("the last 16 bytes may be incomplete, but no more")
    func lastParagraph() throws {
        let file = SampleBzImage.file
        #expect(try parseBzImage(file.dropLast(15)).payload.fileBytes == 0xff1)
        #expect(
            parseError(file.dropLast(16))
                == .truncated(
                    part: "bzImage kernel", end: 0x13f1, fileBytes: 0x13f0))
    }

    @Test("before protocol 2.10 the kernel runs where it is loaded")
    func oldProtocol() throws {
        let image = try parseBzImage(
            SampleBzImage.file.replacing(at: 0x206, with: bytes(UInt16(0x209))))
        #expect(image.runRange == image.payload.range)
    }

    @Test(
        "a header field outside its range is named",
        arguments: [
            (0x206, bytes(UInt16(0x205)), "bzImage boot protocol is 0x205"),
            (0x211, [0], "bzImage loadflags is 0x0"),
            (0x201, [0x39], "bzImage setup header's end is 0x23b"),
            (0x201, [0x8f], "bzImage setup header's end is 0x291"),
            (0x1f4, bytes(UInt32(0)), "bzImage syssize is 0x0"),
            (0x214, bytes(UInt32(0xf_ffff)), "bzImage code32_start is 0xfffff"),
            (0x258, bytes(UInt64.max), "bzImage pref_address is 0xffffffffffffffff"),
        ] as [(Int, [UInt8], String)])
    func badHeader(offset: Int, value: [UInt8], start: String) {
        let file = SampleBzImage.file.replacing(at: offset, with: value)
        #expect(parseError(file)?.description.hasPrefix(start) == true)
    }

    @Test("a file that ends anywhere in its first 1536 bytes is refused")
    func truncation() {
        let survivors = (0..<1536).filter {
            parseError(Array(SampleBzImage.file.prefix($0))) == nil
        }
        #expect(survivors == [])
    }

    @Test("no setup header field at zero, one or its maximum traps")
    func extremes() throws {
        let layout = try GuestMemoryLayout(ramBytes: 128 << 20, physicalAddressBits: 46)
        for offset in 0x1f1..<SampleBzImage.headerEnd {
            bootExtremes(SampleBzImage.file, at: offset, layout: layout)
        }
    }

    @Test("random damage to the setup header never traps")
    func randomDamage() throws {
        let layout = try GuestMemoryLayout(ramBytes: 128 << 20, physicalAddressBits: 46)
        let file = SampleBzImage.file
        var dice = Dice(seed: 0x7377_6966_746c_6574)
        for _ in 0..<1000 {
            var damaged = file
            for _ in 0..<1 + dice.roll(6) {
                damaged[0x1f1 + dice.roll(0x9f)] = UInt8(dice.roll(256))
            }
            bootSucceeds(damaged, layout: layout)
        }
        #expect(bootSucceeds(file, layout: layout))
    }
}
