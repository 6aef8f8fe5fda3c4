import VMMBase

/// The structures through which a PVH kernel learns of its machine (Xen
/// `public/arch-x86/hvm/start_info.h`, version 1).
struct PVHStartInfo {
    /// Where the initramfs lies, nil when there is none.
    let initramfs: GuestRange?
    /// The address of the ACPI root pointer, nil when there are no ACPI tables.
    let rsdp: GuestAddress?
    let memoryMap: [MemoryMapEntry]

    private static let magic: UInt32 = 0x336e_c578

    /// `hvm_start_info`, the module list when there is an initramfs, and the memory map.
    var blobs: [GuestBlob] {
        var blobs = [
            GuestBlob(address: GuestMemoryLayout.startInfo, bytes: startInfo),
            GuestBlob(address: GuestMemoryLayout.pvhMemoryMap, bytes: map),
        ]
        if let initramfs {
            blobs.append(
                GuestBlob(address: GuestMemoryLayout.moduleList, bytes: Self.module(initramfs)))
        }
        return blobs
    }

    private var startInfo: [UInt8] {
        var info = ByteBuilder()
        info.append(Self.magic)
        info.append(UInt32(1))  // version
        info.append(UInt32(0))  // flags
        info.append(UInt32(initramfs == nil ? 0 : 1))
        info.append(initramfs == nil ? 0 : GuestMemoryLayout.moduleList.rawValue)
        info.append(GuestMemoryLayout.commandLine.rawValue)
        info.append(rsdp?.rawValue ?? 0)
        info.append(GuestMemoryLayout.pvhMemoryMap.rawValue)
        info.append(UInt32(memoryMap.count))
        info.append(UInt32(0))
        return info.bytes
    }

    private var map: [UInt8] {
        var table = ByteBuilder()
        for entry in memoryMap {
            table.append(entry.range.start.rawValue)
            table.append(entry.range.count)
            table.append(entry.kind.rawValue)
            table.append(UInt32(0))
        }
        return table.bytes
    }

    /// `hvm_modlist_entry` without a command line of its own.
    private static func module(_ range: GuestRange) -> [UInt8] {
        var entry = ByteBuilder()
        entry.append(range.start.rawValue)
        entry.append(range.count)
        entry.appendZeros(16)
        return entry.bytes
    }
}
