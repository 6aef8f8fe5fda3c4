import Testing
import VMMBase

@testable import VMMFirmware

@Suite("BootRegisters")
struct BootRegistersTests {
    /// Flat 4 GiB descriptors as every boot GDT has them.
    private static let flatCode: UInt64 = 0x00cf_9b00_0000_ffff
    private static let flatData: UInt64 = 0x00cf_9300_0000_ffff
    private static let busyTSS: UInt64 = 0x0000_8b00_0000_0067

    @Test("a PVH kernel starts at its entry with ebx at the start info")
    func pvh() {
        let registers = BootRegisters.pvh(entry: 0x100_0040)
        #expect(registers.rip == 0x100_0040)
        #expect(registers.rbx == 0x6000)
        #expect(registers.rsi == 0)
        #expect([registers.code, registers.data, registers.task].map(\.selector) == [8, 16, 24])
    }

    @Test("a bzImage starts with esi at the zero page and the selectors that Linux asks for")
    func linux() {
        let registers = BootRegisters.linux(entry: GuestAddress(0x10_0000))
        #expect(registers.rip == 0x10_0000)
        #expect(registers.rbx == 0)
        #expect(registers.rsi == 0x7000)
        #expect(registers.rsp == 0x8ff0)
        #expect(registers.code.selector == 0x10)
        #expect(registers.data.selector == 0x18)
    }

    @Test("both start in 32-bit protected mode without paging and interrupts")
    func mode() {
        let registers = BootRegisters.pvh(entry: 0)
        #expect(registers.cr0 == 1)
        #expect(registers.cr4 == 0)
        #expect(registers.rflags == 2)
        #expect(BootRegisters.fpuControlWord == 0x37f)
        #expect(BootRegisters.mxcsr == 0x1f80)
    }

    @Test("the code segment's attributes are KVM's")
    func codeSegment() {
        let code = BootRegisters.pvh(entry: 0).code
        #expect(code.type == 0xb)
        #expect(code.s && code.present && code.db && code.g)
        #expect(!code.l)
        #expect(code.dpl == 0)
        #expect(code.limit == .max)
    }

    @Test("the task segment is a busy 32-bit TSS")
    func taskSegment() {
        let task = BootRegisters.pvh(entry: 0).task
        #expect(task.type == 0xb)
        #expect(task.present)
        #expect(!task.s && !task.db && !task.g)
        #expect(task.limit == 0x67)
    }

    @Test("the GDT holds each segment at its selector")
    func gdt() {
        let pvh = BootRegisters.pvh(entry: 0).gdtBlob
        #expect(pvh.address == GuestAddress(0x500))
        #expect(
            pvh.bytes == bytes(UInt64(0)) + bytes(Self.flatCode) + bytes(Self.flatData)
                + bytes(Self.busyTSS))
        #expect(
            BootRegisters.linux(entry: GuestAddress(0)).gdtBlob.bytes == bytes(UInt64(0))
                + bytes(Self.busyTSS) + bytes(Self.flatCode) + bytes(Self.flatData))
    }

    @Test("a long-mode segment keeps its attributes in its descriptor")
    func longMode() {
        let segment = SegmentRegister(selector: 8, attributes: 0xa0fb, limit: .max)
        #expect(segment.l)
        #expect(segment.dpl == 3)
        #expect(segment.descriptor == 0x00af_fb00_0000_ffff)
    }

    @Test("the boot MSRs turn on fast strings and write-back memory")
    func msrs() {
        #expect(BootMSRs.entries.count == 11)
        #expect(BootMSRs.entries.contains(MSREntry(index: 0x1a0, value: 1)))
        #expect(BootMSRs.entries.contains(MSREntry(index: 0x2ff, value: 0x806)))
        #expect(BootMSRs.entries.filter { $0.value != 0 }.count == 2)
        #expect(BootLocalAPIC.lint0.value == 0x700)
        #expect(BootLocalAPIC.lint1.value == 0x400)
    }
}
