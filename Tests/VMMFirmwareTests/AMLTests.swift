import Testing
import VMMBase

@testable import VMMFirmware

@Suite("AML")
struct AMLTests {
    @Test(
        "a package length is as short as it can be and counts itself",
        arguments: [
            (0, [0x01]),
            (62, [0x3f]),  // 63 with itself: the most that one byte holds
            (63, [0x41, 0x04]),  // 65 with two bytes
            (64, [0x42, 0x04]),
            (4093, [0x4f, 0xff]),  // 4095 with itself: the most that two bytes hold
            (4094, [0x81, 0x00, 0x01]),  // 4097 with three bytes
            (4096, [0x83, 0x00, 0x01]),
            (0xf_ffff - 3, [0x8f, 0xff, 0xff]),
            (0xf_ffff - 2, [0xc1, 0x00, 0x00, 0x01]),
        ] as [(Int, [UInt8])])
    func packageLength(content: Int, encoding: [UInt8]) {
        #expect(AML.packageLength(of: content, countsItself: true) == encoding)
    }

    @Test(
        "the length of a field in bits does not count itself",
        arguments: [
            (8, [0x08]), (63, [0x3f]), (64, [0x40, 0x04]), (4095, [0x4f, 0xff]),
            (4096, [0x80, 0x00, 0x01]),
        ] as [(Int, [UInt8])])
    func fieldLength(bits: Int, encoding: [UInt8]) {
        #expect(AML.packageLength(of: bits, countsItself: false) == encoding)
    }

    @Test(
        "an integer has the shortest encoding",
        arguments: [
            (0, [0x00]), (1, [0x01]), (2, [0x0a, 0x02]), (0xff, [0x0a, 0xff]),
            (0x100, [0x0b, 0x00, 0x01]), (0xffff, [0x0b, 0xff, 0xff]),
            (0x1_0000, [0x0c, 0x00, 0x00, 0x01, 0x00]),
            (0xffff_ffff, [0x0c, 0xff, 0xff, 0xff, 0xff]),
            (0x1_0000_0000, [0x0e, 0, 0, 0, 0, 1, 0, 0, 0]), (.max, [0xff]),
        ] as [(UInt64, [UInt8])])
    func integer(value: UInt64, encoding: [UInt8]) {
        #expect(AML.integer(value).bytes == encoding)
    }

    @Test(
        "a path has its prefix, the count of its segments and padded segments",
        arguments: [
            ("_SB_", Array("_SB_".utf8)), ("GED", Array("GED_".utf8)),
            ("\\", [0x5c, 0x00]), ("^^A", [0x5e, 0x5e] + Array("A___".utf8)),
            ("\\_SB_.PC00", [0x5c, 0x2e] + Array("_SB_PC00".utf8)),
            ("\\_SB_.PC00.S000", [0x5c, 0x2f, 0x03] + Array("_SB_PC00S000".utf8)),
        ] as [(String, [UInt8])])
    func path(text: String, encoding: [UInt8]) {
        #expect(AML.path(text).bytes == encoding)
    }

    @Test(
        "an EISA id is compressed as in the ACPI specification",
        arguments: [
            ("PNP0A08", [0x0c, 0x41, 0xd0, 0x0a, 0x08]),
            ("PNP0501", [0x0c, 0x41, 0xd0, 0x05, 0x01]),
            ("PNP0C0C", [0x0c, 0x41, 0xd0, 0x0c, 0x0c]),
        ] as [(String, [UInt8])])
    func eisaID(text: String, encoding: [UInt8]) {
        #expect(AML.eisaID(text).bytes == encoding)
    }

    @Test("strings end with a NUL and buffers begin with their size")
    func data() {
        #expect(AML.string("AB").bytes == [0x0d, 0x41, 0x42, 0x00])
        #expect(AML.buffer([7, 8]).bytes == [0x11, 0x05, 0x0a, 0x02, 7, 8])
        #expect(AML.buffer([]).bytes == [0x11, 0x02, 0x00])
        #expect(AML.package([.integer(5), .integer(0)]).bytes == [0x12, 0x05, 0x02, 0x0a, 5, 0])
    }

    @Test("a UUID is a buffer in ToUUID's byte order")
    func uuid() {
        #expect(
            AML.uuid("aabbccdd-eeff-0011-2233-445566778899").bytes
                == [0x11, 0x13, 0x0a, 0x10, 0xdd, 0xcc, 0xbb, 0xaa, 0xff, 0xee, 0x11, 0x00]
                + [0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99])
    }

    @Test("scopes, devices and names nest")
    func objects() {
        let name = AML.name("_UID", .integer(1))
        #expect(name.bytes == [0x08] + Array("_UID".utf8) + [0x01])
        #expect(
            AML.device("DEV0", [name]).bytes
                == [0x5b, 0x82, 0x0b] + Array("DEV0".utf8) + name.bytes)
        #expect(
            AML.scope("\\_SB_", [name]).bytes
                == [0x10, 0x0c, 0x5c] + Array("_SB_".utf8) + name.bytes)
    }

    @Test("a device of more than 63 bytes has a longer length")
    func longDevice() {
        let device = AML.device("DEV0", [.buffer([UInt8](repeating: 0, count: 60))])
        // 4 bytes of name; opcode, length, size (2) and 60 bytes of buffer; 2 of length.
        #expect(device.bytes.prefix(4) == [0x5b, 0x82, 0x46, 0x04])
        #expect(device.bytes.count == 2 + 0x46)
    }

    @Test("a method has its argument count and serialization in one byte")
    func method() {
        let returnZero = AML.return(.integer(0))
        #expect(
            AML.method("_STA", arguments: 0, serialized: false, [returnZero]).bytes
                == [0x14, 0x08] + Array("_STA".utf8) + [0x00, 0xa4, 0x00])
        #expect(
            AML.method("_EVT", arguments: 1, serialized: true, []).bytes
                == [0x14, 0x06] + Array("_EVT".utf8) + [0x09])
    }

    @Test("an operation region and its fields")
    func region() {
        #expect(
            AML.operationRegion("REGN", .systemMemory, offset: 0x1000, length: 1).bytes
                == [0x5b, 0x80] + Array("REGN".utf8) + [0x00, 0x0b, 0x00, 0x10, 0x01])
        #expect(
            AML.field("REGN", .byte, [(name: "FLD0", bits: 8), (name: "FLD1", bits: 72)]).bytes
                == [0x5b, 0x81, 0x11] + Array("REGN".utf8) + [0x41] + Array("FLD0".utf8) + [0x08]
                + Array("FLD1".utf8) + [0x48, 0x04])
        #expect(AML.RegionSpace.systemIO.rawValue == 1)
        #expect(AML.FieldAccess.doubleWord.rawValue == 3)
    }

    @Test("statements")
    func statements() {
        #expect(AML.store(.argument(1), to: .local(2)).bytes == [0x70, 0x69, 0x62])
        #expect(AML.and(.local(0), .integer(8)).bytes == [0x7b, 0x60, 0x0a, 0x08, 0x00])
        #expect(AML.equal(.argument(0), .integer(1)).bytes == [0x93, 0x68, 0x01])
        #expect(
            AML.notify("PWRB", 0x80).bytes == [0x86] + Array("PWRB".utf8) + [0x0a, 0x80])
        #expect(AML.if(.local(0), [.return(.integer(1))]).bytes == [0xa0, 0x04, 0x60, 0xa4, 0x01])
    }
}
