/// One model-specific register and its value.
package struct MSREntry: Hashable, Sendable {
    /// The number that RDMSR takes in ecx.
    package let index: UInt32
    /// The value.
    package let value: UInt64

    /// Any register and value.
    package init(index: UInt32, value: UInt64) {
        self.index = index
        self.value = value
    }
}

/// What every vCPU's MSRs and local APIC hold at the guest's first instruction
/// (`reference/cloud-hypervisor.md` 4.3; numbers from Intel SDM 4).
package enum BootMSRs {
    /// To be set on every vCPU, in this order.
    package static let entries: [MSREntry] = [
        MSREntry(index: 0x174, value: 0),  // SYSENTER_CS
        MSREntry(index: 0x175, value: 0),  // SYSENTER_ESP
        MSREntry(index: 0x176, value: 0),  // SYSENTER_EIP
        MSREntry(index: 0xc000_0081, value: 0),  // STAR
        MSREntry(index: 0xc000_0083, value: 0),  // CSTAR
        MSREntry(index: 0xc000_0082, value: 0),  // LSTAR
        MSREntry(index: 0xc000_0102, value: 0),  // KERNEL_GS_BASE
        MSREntry(index: 0xc000_0084, value: 0),  // SYSCALL_MASK
        MSREntry(index: 0x10, value: 0),  // TSC
        MSREntry(index: 0x1a0, value: 1),  // MISC_ENABLE: fast string operations
        MSREntry(index: 0x2ff, value: 0x806),  // MTRRdefType: enabled, write-back
    ]
}

/// The local APIC registers that firmware leaves set on every vCPU (Intel SDM 3A, 11.5.1).
package enum BootLocalAPIC {
    /// LINT0 takes the 8259's interrupts: byte offset in the register page, value.
    package static let lint0: (offset: Int, value: UInt32) = (0x350, 0x700)
    /// LINT1 takes NMIs: byte offset in the register page, value.
    package static let lint1: (offset: Int, value: UInt32) = (0x360, 0x400)
}
