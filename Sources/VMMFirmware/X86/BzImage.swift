import VMMBase

/// What a bzImage's setup header says (Linux `Documentation/arch/x86/boot.rst`, boot protocol
/// 2.06 or later). The kernel is started at its 32-bit entry, so the real-mode part is not loaded.
package struct BzImage: Hashable, Sendable {
    /// The boot protocol's version, 0x206 or more; the high byte is the major number.
    package let protocolVersion: UInt16
    /// The setup header as it stands in the file, from byte 0x1f1 on; goes into the zero page.
    package let setupHeader: [UInt8]
    /// The protected-mode kernel: its place in the file and the memory it is loaded to. The 32-bit
    /// entry is the first byte.
    package let payload: LoadSegment
    /// The memory that the kernel needs while it unpacks itself, before it reads the memory map.
    package let runRange: GuestRange
    /// The longest command line that the kernel takes, in bytes without the final NUL.
    package let commandLineLimit: UInt32
    /// The highest address that the initramfs's last byte may have.
    package let initramfsLastAddress: GuestAddress

    /// The file offset of the setup header, and of its copy in the zero page.
    static let setupHeaderOffset = 0x1f1
    /// The header may reach as far as the zero page has room for it.
    static let headerSearchBytes: UInt64 = 0x290

    private static let oldestVersion: UInt16 = 0x206
    private static let versionWithRunRange: UInt16 = 0x20a
    private static let loadedHigh: UInt8 = 1

    static func isRecognised(_ start: ImageFields) -> Bool {
        let bootFlag: UInt16 = start.value(at: 0x1fe)
        let signature: UInt32 = start.value(at: 0x202)  // "HdrS"
        return bootFlag == 0xaa55 && signature == 0x5372_6448
    }

    /// `start` holds the file's first `headerSearchBytes` bytes, or all of a shorter file.
    init(_ start: ImageFields, _ source: some ImageSource) throws(KernelImageError) {
        protocolVersion = start.value(at: 0x206)
        guard protocolVersion >= Self.oldestVersion else {
            throw .unsupported(
                field: "bzImage boot protocol", value: UInt64(protocolVersion),
                allowed: "0x206 or more (Linux 2.6.22 or later)")
        }
        let loadFlags: UInt8 = start.value(at: 0x211)
        guard loadFlags & Self.loadedHigh != 0 else {
            throw .unsupported(
                field: "bzImage loadflags", value: UInt64(loadFlags),
                allowed: "a value with bit 0 set (loaded at 1 MiB)")
        }
        setupHeader = try Self.setupHeader(start, source)
        payload = try Self.payload(start, source)
        runRange = try Self.runRange(start, payload: payload, version: protocolVersion)
        commandLineLimit = start.value(at: 0x238)
        initramfsLastAddress = GuestAddress(UInt64(start.value(at: 0x22c) as UInt32))
    }

    /// The header ends 0x202 bytes plus the operand of the short jump at 0x200 from the start.
    private static func setupHeader(
        _ start: ImageFields, _ source: some ImageSource
    ) throws(KernelImageError) -> [UInt8] {
        let operand: UInt8 = start.value(at: 0x201)
        let end = 0x202 + Int(operand)
        // Protocol 2.06 ends its header at 0x23c; every field that this type reads lies below.
        guard (0x23c...Int(headerSearchBytes)).contains(end) else {
            throw .unsupported(
                field: "bzImage setup header's end", value: UInt64(end),
                allowed: "0x23c to 0x\(String(headerSearchBytes, radix: 16))")
        }
        try source.requirePart("bzImage setup header", at: 0, count: UInt64(end))
        return start.slice(setupHeaderOffset..<end)
    }

    private static func payload(
        _ start: ImageFields, _ source: some ImageSource
    ) throws(KernelImageError) -> LoadSegment {
        let setupSectors: UInt8 = start.value(at: 0x1f1)
        // Zero stands for 4, for kernels of the last century; the boot sector comes on top.
        let offset = (setupSectors == 0 ? 5 : UInt64(setupSectors) + 1) * 512
        let paragraphs: UInt32 = start.value(at: 0x1f4)
        let address = GuestAddress(UInt64(start.value(at: 0x214) as UInt32))
        guard address >= GuestMemoryLayout.kernelFloor else {
            throw .unsupported(
                field: "bzImage code32_start", value: address.rawValue,
                allowed: "\(GuestMemoryLayout.kernelFloor) or more")
        }
        let count = UInt64(paragraphs) * 16
        guard let range = GuestRange(start: address, count: count) else {
            throw .unsupported(field: "bzImage syssize", value: 0, allowed: "1 or more")
        }
        // A signature may follow the kernel; the last paragraph may be incomplete.
        try source.requirePart("bzImage kernel", at: offset, count: count - 15)
        return LoadSegment(
            fileOffset: offset, fileBytes: min(count, source.byteCount - offset), range: range)
    }

    /// The kernel moves itself to its preferred address when it was loaded below that.
    private static func runRange(
        _ start: ImageFields, payload: LoadSegment, version: UInt16
    ) throws(KernelImageError) -> GuestRange {
        guard version >= versionWithRunRange else { return payload.range }
        let preferred = GuestAddress(start.value(at: 0x258))
        let initBytes: UInt32 = start.value(at: 0x260)
        let range = GuestRange(
            start: max(preferred, payload.address),
            count: max(UInt64(initBytes), payload.memoryBytes))
        guard let range else {
            throw .unsupported(
                field: "bzImage pref_address", value: preferred.rawValue,
                allowed: "an address inside guest memory")
        }
        return range
    }
}
