import VMMBase

/// Linux's `boot_params`, through which a bzImage learns of its machine (Linux
/// `Documentation/arch/x86/zero-page.rst`).
struct ZeroPage {
    let kernel: BzImage
    /// Where the initramfs lies, below 4 GiB; nil when there is none.
    let initramfs: GuestRange?
    /// The length of the command line in bytes, without the final NUL.
    let commandLineBytes: Int
    /// The address of the ACPI root pointer, nil when there are no ACPI tables.
    let rsdp: GuestAddress?
    let memoryMap: [MemoryMapEntry]

    private enum Offset {
        static let rsdp = 0x70
        static let memoryMapCount = 0x1e8
        static let loaderType = 0x210
        static let code32Start = 0x214
        static let ramdiskAddress = 0x218
        static let ramdiskBytes = 0x21c
        static let commandLine = 0x228
        static let commandLineBytes = 0x238
        static let memoryMap = 0x2d0
    }

    private static let unregisteredLoader: UInt8 = 0xff

    /// The page, 4096 bytes.
    var blob: GuestBlob {
        var page = ByteBuilder()
        page.appendZeros(BzImage.setupHeaderOffset)
        page.append(bytes: kernel.setupHeader)
        page.appendZeros(Int(GuestMemoryLayout.pageBytes) - page.count)
        page.patch(rsdp?.rawValue ?? 0, at: Offset.rsdp)
        if page.bytes[Offset.loaderType] == 0 {
            page.patch(Self.unregisteredLoader, at: Offset.loaderType)
        }
        page.patch(
            UInt32(truncatingIfNeeded: kernel.payload.address.rawValue), at: Offset.code32Start)
        page.patch(
            UInt32(truncatingIfNeeded: initramfs?.start.rawValue ?? 0), at: Offset.ramdiskAddress)
        page.patch(UInt32(truncatingIfNeeded: initramfs?.count ?? 0), at: Offset.ramdiskBytes)
        page.patch(
            UInt32(truncatingIfNeeded: GuestMemoryLayout.commandLine.rawValue),
            at: Offset.commandLine)
        page.patch(UInt32(commandLineBytes), at: Offset.commandLineBytes)
        append(memoryMap, to: &page)
        return GuestBlob(address: GuestMemoryLayout.zeroPage, bytes: page.bytes)
    }

    private func append(_ map: [MemoryMapEntry], to page: inout ByteBuilder) {
        precondition(map.count <= 128, "the zero page has room for 128 memory map entries")
        page.patch(UInt8(map.count), at: Offset.memoryMapCount)
        for (index, entry) in map.enumerated() {
            let offset = Offset.memoryMap + index * 20
            page.patch(entry.range.start.rawValue, at: offset)
            page.patch(entry.range.count, at: offset + 8)
            page.patch(entry.kind.rawValue, at: offset + 16)
        }
    }
}
