import VMMBase

/// The fixed places of the x86-64 layout (`reference/cloud-hypervisor.md` 4.1), guest-physical.
extension GuestMemoryLayout {
    /// The unit of RAM and of the initramfs's place, in bytes.
    package static let pageBytes: UInt64 = 4096

    /// The 16-bit real-mode segment of the extended BIOS data area; Linux looks for the RSDP there.
    package static let ebdaPointer = GuestAddress(0x40e)
    /// The boot GDT: four descriptors of 8 bytes.
    package static let gdt = GuestAddress(0x500)
    /// The boot IDT: one empty descriptor, because interrupts are off at entry.
    package static let idt = GuestAddress(0x520)
    /// PVH's `hvm_start_info`.
    package static let startInfo = GuestAddress(0x6000)
    /// PVH's list of modules: the initramfs.
    package static let moduleList = GuestAddress(0x6040)
    /// PVH's memory map.
    package static let pvhMemoryMap = GuestAddress(0x7000)
    /// The bzImage boot protocol's zero page, one page long.
    package static let zeroPage = GuestAddress(0x7000)
    /// The initial stack pointer; the stack grows down to 0x8000.
    package static let bootStack = GuestAddress(0x8ff0)
    /// The kernel's command line.
    package static let commandLine = GuestAddress(0x20000)
    /// The room for the command line in bytes, with its final NUL.
    package static let commandLineRoom = 0x10000
    /// The ACPI tables, RSDP first; also the start of the EBDA and the end of the lowest RAM.
    package static let rsdp = GuestAddress(0xa0000)
    /// The SMBIOS entry point, then its structures, then the MP table.
    package static let smbios = GuestAddress(0xf0000)
    /// The first address above the BIOS area and the lowest that a kernel may be loaded to.
    package static let kernelFloor = GuestAddress(0x100000)

    /// The 640 MiB for 32-bit PCI BARs, from 3 GiB on.
    package static let mmio32Hole = range(0xc000_0000, 0x2800_0000)
    /// The page of registers of a virtio device that is not on the PCI bus, which this machine
    /// then does not have; at most 32 of them.
    package static func virtIORegisters(_ index: Int) -> GuestRange {
        precondition((0..<32).contains(index), "an I/O APIC has fewer pins than this")
        return range(mmio32Hole.start.rawValue + UInt64(index + 1) * pageBytes, pageBytes)
    }

    /// PCI configuration space: 1 MiB for the one bus of each of up to 256 segments.
    package static let ecam = range(0xe800_0000, 0x1000_0000)
    /// The configuration space of one segment's bus 0, in bytes.
    package static let ecamSegmentBytes: UInt64 = 1 << 20
    /// Three pages that KVM takes for a task state segment (KVM_SET_TSS_ADDR).
    package static let tss = range(0xf800_0000, 0x3000)
    /// A page that KVM takes for an identity map (KVM_SET_IDENTITY_MAP_ADDR).
    package static let identityMap = range(0xf800_3000, 0x1000)
    /// The I/O APIC's registers.
    package static let ioapic = range(0xfec0_0000, 0x20)
    /// The TPM's command-response buffer.
    package static let tpm = range(0xfed4_0000, 0x1000)
    /// The local APICs' page, and the first of the MSI addresses.
    package static let localAPIC = GuestAddress(0xfee0_0000)
    /// The addresses to which a device writes to raise an MSI.
    package static let msiWindow = range(0xfee0_0000, 0x10_0000)

    /// The configuration space of PCI segment `index`'s bus 0; nil from segment 256 on.
    package static func ecam(segment index: UInt16) -> GuestRange? {
        guard index < ecam.count / ecamSegmentBytes else { return nil }
        return range(ecam.start.rawValue + UInt64(index) * ecamSegmentBytes, ecamSegmentBytes)
    }
}
