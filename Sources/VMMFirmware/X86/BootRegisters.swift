import VMMBase

/// The first vCPU's registers at the guest's first instruction: 32-bit protected mode, flat
/// segments, no paging, interrupts off. What is not named here is zero.
package struct BootRegisters: Hashable, Sendable {
    /// Guest-physical address of the first instruction.
    package let rip: UInt64
    /// The stack's top.
    package let rsp: UInt64
    /// PVH: the address of `hvm_start_info`.
    package let rbx: UInt64
    /// bzImage: the address of the zero page.
    package let rsi: UInt64
    /// Only the bit that is always set.
    package let rflags: UInt64 = 2
    /// Protection on, paging off.
    package let cr0: UInt64 = 1
    /// No extensions.
    package let cr4: UInt64 = 0
    /// CS.
    package let code: SegmentRegister
    /// DS, ES, FS, GS and SS.
    package let data: SegmentRegister
    /// TR.
    package let task: SegmentRegister
    /// The boot GDT's address, limit and 32 bytes of content.
    package let gdtBase = GuestMemoryLayout.gdt
    /// Offset of the GDT's last byte.
    package let gdtLimit: UInt16 = 31
    /// The boot IDT's address; its 8 bytes stay zero.
    package let idtBase = GuestMemoryLayout.idt
    /// Offset of the IDT's last byte.
    package let idtLimit: UInt16 = 7

    /// The x87 control word after FNINIT (Intel SDM 1, 8.1.5).
    package static let fpuControlWord: UInt16 = 0x37f
    /// All SSE exceptions masked (Intel SDM 1, 10.2.3).
    package static let mxcsr: UInt32 = 0x1f80

    private static let codeAttributes: UInt16 = 0xc09b
    private static let dataAttributes: UInt16 = 0xc093
    private static let busyTSSAttributes: UInt16 = 0x008b

    /// The state of Xen's `docs/misc/pvh.pandoc`: the start info's address is in ebx.
    static func pvh(entry: UInt32) -> BootRegisters {
        BootRegisters(
            rip: UInt64(entry), rbx: GuestMemoryLayout.startInfo.rawValue, rsi: 0,
            code: SegmentRegister(selector: 8, attributes: codeAttributes, limit: .max),
            data: SegmentRegister(selector: 16, attributes: dataAttributes, limit: .max),
            task: SegmentRegister(selector: 24, attributes: busyTSSAttributes, limit: 0x67))
    }

    /// The state of Linux's 32-bit boot protocol: the zero page's address is in esi, and CS and DS
    /// have the selectors 0x10 and 0x18, which kernels before 5.10 load again before they have a
    /// GDT of their own.
    static func linux(entry: GuestAddress) -> BootRegisters {
        BootRegisters(
            rip: entry.rawValue, rbx: 0, rsi: GuestMemoryLayout.zeroPage.rawValue,
            code: SegmentRegister(selector: 16, attributes: codeAttributes, limit: .max),
            data: SegmentRegister(selector: 24, attributes: dataAttributes, limit: .max),
            task: SegmentRegister(selector: 8, attributes: busyTSSAttributes, limit: 0x67))
    }

    private init(
        rip: UInt64, rbx: UInt64, rsi: UInt64,
        code: SegmentRegister, data: SegmentRegister, task: SegmentRegister
    ) {
        self.rip = rip
        self.rsp = GuestMemoryLayout.bootStack.rawValue
        self.rbx = rbx
        self.rsi = rsi
        self.code = code
        self.data = data
        self.task = task
    }

    /// The GDT's content: each segment at its selector, the null descriptor first.
    var gdtBlob: GuestBlob {
        var bytes = ByteBuilder()
        bytes.appendZeros(Int(gdtLimit) + 1)
        for segment in [code, data, task] {
            bytes.patch(segment.descriptor, at: Int(segment.selector))
        }
        return GuestBlob(address: gdtBase, bytes: bytes.bytes)
    }
}
