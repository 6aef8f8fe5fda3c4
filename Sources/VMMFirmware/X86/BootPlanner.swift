import VMMBase

/// Decides what goes where in a fresh guest's memory. Pure: it reads no file.
package struct BootPlanner: Sendable {
    /// The guest's memory.
    package let layout: GuestMemoryLayout
    /// The ACPI, SMBIOS and MP tables, where they belong.
    package let tables: [GuestBlob]

    /// `tables` are copied into every plan; an RSDP among them is announced to the kernel.
    package init(layout: GuestMemoryLayout, tables: [GuestBlob]) {
        self.layout = layout
        self.tables = tables
    }

    /// The plan for a kernel, an initramfs of `initramfsBytes` (nil or 0 for none) and a command
    /// line in UTF-8.
    package func plan(
        kernel: KernelImage, initramfsBytes: UInt64?, commandLine: String
    ) throws(BootError) -> BootPlan {
        let footprint = Footprint(kernel)
        let line = try terminated(commandLine, limit: footprint.commandLineLimit)
        try requireRoom(for: footprint)
        let initramfs = try place(initramfsBytes ?? 0, beside: footprint)
        let (registers, structures) = boot(kernel, initramfs, commandLineBytes: line.count - 1)
        let ebda = UInt16(truncatingIfNeeded: GuestMemoryLayout.rsdp.rawValue >> 4)
        let lowMemory = [
            GuestBlob(
                address: GuestMemoryLayout.ebdaPointer,
                bytes: [UInt8(truncatingIfNeeded: ebda), UInt8(ebda >> 8)]),
            registers.gdtBlob,
            GuestBlob(address: GuestMemoryLayout.commandLine, bytes: line),
        ]
        return BootPlan(
            fileLoads: loads(of: footprint, initramfs: initramfs),
            blobs: lowMemory + structures + tables,
            registers: registers)
    }

    /// What both kinds of kernel need of guest memory.
    private struct Footprint {
        let segments: [LoadSegment]
        /// All memory that is the kernel's until it has read the memory map.
        let ranges: [GuestRange]
        /// In bytes, without the final NUL.
        let commandLineLimit: Int
        /// The highest address that the initramfs's last byte may have.
        let initramfsLast: GuestAddress

        init(_ kernel: KernelImage) {
            let room = GuestMemoryLayout.commandLineRoom - 1
            switch kernel {
            case .elf(let elf):
                segments = elf.segments
                ranges = elf.segments.map(\.range)
                commandLineLimit = room
                initramfsLast = GuestAddress(UInt64(UInt32.max))
            case .bzImage(let image):
                segments = [image.payload]
                ranges = [image.payload.range, image.runRange]
                commandLineLimit = min(room, Int(image.commandLineLimit))
                initramfsLast = image.initramfsLastAddress
            }
        }
    }

    private func terminated(_ commandLine: String, limit: Int) throws(BootError) -> [UInt8] {
        let line = Array(commandLine.utf8)
        if let offset = line.firstIndex(of: 0) { throw .commandLineHasNUL(offset: offset) }
        guard line.count <= limit else {
            throw .commandLineTooLong(bytes: line.count, limit: limit)
        }
        return line + [0]
    }

    private func requireRoom(for footprint: Footprint) throws(BootError) {
        for range in footprint.ranges {
            let ram = layout.ramRanges.first { $0.offset(of: range.start) != nil }
            guard let ram, range.last <= ram.last, range.start >= GuestMemoryLayout.kernelFloor
            else {
                throw .segmentOutsideRAM(
                    address: range.start, bytes: range.count, ramEnd: layout.ramEnd)
            }
            for table in tables {
                let used = GuestRange(start: table.address, count: UInt64(table.bytes.count))
                guard let used, used.overlaps(range) else { continue }
                throw .kernelOverlapsTable(segment: range.start, table: table.address)
            }
        }
    }

    /// The highest page-aligned place in low RAM, if nothing of the kernel is there.
    private func place(
        _ bytes: UInt64, beside footprint: Footprint
    ) throws(BootError) -> GuestRange? {
        guard bytes > 0 else { return nil }
        let afterLast = footprint.initramfsLast.advanced(by: 1) ?? footprint.initramfsLast
        let top = min(layout.lowRAMEnd, afterLast)
        let kernelEnd =
            footprint.ranges.filter { $0.start < top }.map { $0.last.rawValue + 1 }.max() ?? 0
        let floor = max(kernelEnd, GuestMemoryLayout.kernelFloor.rawValue)
        let free = top.rawValue > floor ? top.rawValue - floor : 0
        guard bytes <= free else { throw .initramfsTooLarge(bytes: bytes, free: free) }
        let start = (top.rawValue - bytes) & ~(GuestMemoryLayout.pageBytes - 1)
        guard start >= floor, let range = GuestRange(start: GuestAddress(start), count: bytes)
        else { throw .initramfsTooLarge(bytes: bytes, free: free) }
        return range
    }

    private func boot(
        _ kernel: KernelImage, _ initramfs: GuestRange?, commandLineBytes: Int
    ) -> (BootRegisters, [GuestBlob]) {
        let rsdp = tables.first { $0.address == GuestMemoryLayout.rsdp }?.address
        switch kernel {
        case .elf(let elf):
            let info = PVHStartInfo(
                initramfs: initramfs, rsdp: rsdp, memoryMap: layout.memoryMap)
            return (.pvh(entry: elf.pvhEntry), info.blobs)
        case .bzImage(let image):
            let page = ZeroPage(
                kernel: image, initramfs: initramfs, commandLineBytes: commandLineBytes,
                rsdp: rsdp, memoryMap: layout.memoryMap)
            return (.linux(entry: image.payload.address), [page.blob])
        }
    }

    private func loads(of footprint: Footprint, initramfs: GuestRange?) -> [FileLoad] {
        var loads = footprint.segments.filter { $0.fileBytes > 0 }.map { segment in
            FileLoad(
                source: .kernel, fileOffset: segment.fileOffset, byteCount: segment.fileBytes,
                address: segment.address)
        }
        if let initramfs {
            loads.append(
                FileLoad(
                    source: .initramfs, fileOffset: 0, byteCount: initramfs.count,
                    address: initramfs.start))
        }
        return loads
    }
}
