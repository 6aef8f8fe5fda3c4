import Testing
import VMMBase

@testable import VMMFirmware

@Suite("MPTable")
struct MPTableTests {
    private func table(_ apicIDs: [UInt32], at address: UInt64 = 0xf00b3) throws -> GuestBlob {
        try #require(MPTable.build(apicIDs: apicIDs, at: GuestAddress(address)))
    }

    @Test("the floating pointer is at the next multiple of 16 and points behind itself")
    func floatingPointer() throws {
        let blob = try table([0])
        #expect(blob.address == GuestAddress(0xf00c0))
        #expect(blob.bytes.ascii(0..<4) == "_MP_")
        #expect(blob.bytes.little(4) as UInt32 == 0xf00d0)
        #expect(Array(blob.bytes[8..<10]) == [1, 4])
        #expect(Array(blob.bytes[0..<16]).sum == 0)
    }

    @Test("the header counts bytes and entries and has its checksum right")
    func header() throws {
        let table = Array(try table([0, 1]).bytes.dropFirst(16))
        #expect(table.ascii(0..<4) == "PCMP")
        #expect(Int(table.little(4) as UInt16) == table.count)
        #expect(table[6] == 4)
        #expect(table.sum == 0)
        #expect(table.ascii(8..<16) == "SWIFTLET")
        // Two processors, a bus, an I/O APIC, 16 interrupts, two local interrupts.
        #expect(table.little(34) as UInt16 == 22)
        #expect(table.little(36) as UInt32 == 0xfee0_0000)
        #expect(table.count == 44 + 2 * 20 + 20 * 8)
    }

    @Test("the first processor boots and all are enabled")
    func processors() throws {
        let entries = Array(try table([0, 7]).bytes.dropFirst(16 + 44))
        #expect(Array(entries[0..<4]) == [0, 0, 0x14, 3])
        #expect(Array(entries[20..<24]) == [0, 7, 0x14, 1])
    }

    @Test("the ISA bus's 16 interrupts go to the pins of their numbers")
    func interrupts() throws {
        let entries = Array(try table([0, 7]).bytes.dropFirst(16 + 44 + 40))
        #expect(Array(entries[0..<8]) == [1, 0] + Array("ISA   ".utf8))
        #expect(Array(entries[8..<16]) == [2, 8, 0x11, 1, 0, 0, 0xc0, 0xfe])
        for line in UInt8(0)..<16 {
            let offset = 16 + Int(line) * 8
            #expect(Array(entries[offset..<offset + 8]) == [3, 0, 0, 0, 0, line, 8, line])
        }
        #expect(Array(entries[144..<152]) == [4, 3, 0, 0, 0, 0, 0, 0])
        #expect(Array(entries[152..<160]) == [4, 1, 0, 0, 0, 0, 0xff, 1])
    }

    @Test("an APIC id of 254 or more has no table")
    func largeAPICID() {
        #expect(MPTable.build(apicIDs: [253], at: GuestAddress(0xf0000)) != nil)
        #expect(MPTable.build(apicIDs: [254], at: GuestAddress(0xf0000)) == nil)
        #expect(MPTable.build(apicIDs: [.max], at: GuestAddress(0xf0000)) == nil)
    }

    @Test("a table that would pass 1 MiB, or that Linux would not look for, does not exist")
    func placement() {
        // 16 bytes of pointer, 44 of header, 20 of one processor, 160 of the rest.
        #expect(MPTable.build(apicIDs: [0], at: GuestAddress(0x10_0000 - 240)) != nil)
        #expect(MPTable.build(apicIDs: [0], at: GuestAddress(0x10_0000 - 224)) == nil)
        #expect(MPTable.build(apicIDs: [0], at: GuestAddress(0x10_0000)) == nil)
        #expect(MPTable.build(apicIDs: [0], at: GuestAddress(0x9fc00)) == nil)
        #expect(MPTable.build(apicIDs: [0], at: GuestAddress(.max)) == nil)
    }
}
