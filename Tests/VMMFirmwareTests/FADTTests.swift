import Testing
import VMMBase

@testable import VMMFirmware

@Suite("FADT")
struct FADTTests {
    @Test("the fields of a hardware-reduced machine are at their places")
    func fields() {
        let fadt = FADT(dsdt: 0xa0030, hasCMOSClock: true).table.bytes
        #expect(fadt.count == 276)
        #expect(fadt.sum == 0)
        #expect(fadt[8] == 6)
        #expect(fadt[131] == 3)
        #expect(fadt.little(140) as UInt64 == 0xa0030)
        #expect(fadt[91] == 4)  // PM timer length
        #expect(fadt[128] == 1)  // reset value
        #expect(fadt.ascii(268..<276) == "SWIFTLET")
    }

    @Test("the flags say hardware-reduced, reset register, 32-bit timer and no fixed buttons")
    func flags() {
        let flags: UInt32 = FADT(dsdt: 0, hasCMOSClock: true).table.bytes.little(112)
        #expect(flags == 1 << 20 | 1 << 10 | 1 << 8 | 1 << 5 | 1 << 4 | 1)
    }

    @Test("the registers are ports: reset and sleep 0x600, timer 0x608")
    func registers() {
        let fadt = FADT(dsdt: 0, hasCMOSClock: true).table.bytes
        let bytePort = [1, 8, 0, 1] + bytes(UInt64(0x600))
        #expect(Array(fadt[116..<128]) == bytePort)
        #expect(Array(fadt[244..<256]) == bytePort)
        #expect(Array(fadt[256..<268]) == bytePort)
        #expect(Array(fadt[208..<220]) == [1, 32, 0, 3] + bytes(UInt64(0x608)))
        #expect(fadt[148..<208].allSatisfy { $0 == 0 })
        #expect(fadt[220..<244].allSatisfy { $0 == 0 })
    }

    @Test("a machine without a CMOS clock says so")
    func cmosClock() {
        let with: UInt16 = FADT(dsdt: 0, hasCMOSClock: true).table.bytes.little(109)
        let without: UInt16 = FADT(dsdt: 0, hasCMOSClock: false).table.bytes.little(109)
        #expect(with == 1 << 2 | 1 << 4)  // no VGA, no ASPM
        #expect(without == with | 1 << 5)
    }
}
