import VMMBase

/// What an ELF64 x86-64 file says about itself as a PVH guest: which parts to load where, and
/// where to start in 32-bit protected mode (ELF gABI; Xen `public/elfnote.h`,
/// `XEN_ELFNOTE_PHYS32_ENTRY`).
package struct ELFKernel: Hashable, Sendable {
    /// Guest-physical address of the 32-bit entry; it lies inside one of the segments.
    package let pvhEntry: UInt32
    /// The non-empty PT_LOAD segments at their physical addresses, in file order; at least one.
    package let segments: [LoadSegment]

    /// 0x7f "ELF", little-endian.
    static let magic: UInt32 = 0x464c_457f
    private static let headerBytes: UInt64 = 64
    private static let programHeaderBytes: UInt64 = 56
    /// A kernel has about five program headers; more only cost memory and time.
    private static let maximumProgramHeaders: UInt16 = 256
    /// Linux has a few hundred bytes of notes.
    private static let maximumNoteBytes = 64 << 10

    private enum ProgramType {
        static let load: UInt32 = 1
        static let note: UInt32 = 4
    }

    init(_ source: some ImageSource) throws(KernelImageError) {
        let headers = try Self.programHeaders(source)
        segments = try Self.loadSegments(headers, source)
        pvhEntry = try Self.findPVHEntry(headers, source)
        let entry = GuestAddress(UInt64(pvhEntry))
        guard segments.contains(where: { $0.range.offset(of: entry) != nil }) else {
            throw .unsupported(
                field: "PVH entry", value: entry.rawValue,
                allowed: "an address inside a loaded segment")
        }
    }

    /// One program header's numbers as the file has them, unchecked.
    private struct ProgramHeader {
        let type: UInt32
        let fileOffset: UInt64
        let physicalAddress: UInt64
        let fileBytes: UInt64
        let memoryBytes: UInt64
        let alignment: UInt64

        init(_ table: ImageFields, at offset: Int) {
            type = table.value(at: offset)
            fileOffset = table.value(at: offset + 8)
            physicalAddress = table.value(at: offset + 24)
            fileBytes = table.value(at: offset + 32)
            memoryBytes = table.value(at: offset + 40)
            alignment = table.value(at: offset + 48)
        }
    }

    private static func programHeaders(
        _ source: some ImageSource
    ) throws(KernelImageError) -> [ProgramHeader] {
        let header = try source.fields(
            of: "ELF header", at: 0, count: headerBytes, limit: Int(headerBytes))
        func require(
            _ field: String, _ value: UInt64, _ allowed: Set<UInt64>, _ text: String
        ) throws(KernelImageError) {
            guard allowed.contains(value) else {
                throw .unsupported(field: "ELF \(field)", value: value, allowed: text)
            }
        }
        try require("class", UInt64(header.value(at: 4) as UInt8), [2], "2 (64-bit)")
        try require("byte order", UInt64(header.value(at: 5) as UInt8), [1], "1 (little-endian)")
        try require(
            "type", UInt64(header.value(at: 16) as UInt16), [2, 3],
            "2 (executable) or 3 (position-independent)")
        try require("machine", UInt64(header.value(at: 18) as UInt16), [62], "62 (x86-64)")
        try require(
            "program header size", UInt64(header.value(at: 54) as UInt16), [programHeaderBytes],
            "\(programHeaderBytes)")
        let count: UInt16 = header.value(at: 56)
        guard (1...maximumProgramHeaders).contains(count) else {
            throw .unsupported(
                field: "ELF program header count", value: UInt64(count),
                allowed: "1 to \(maximumProgramHeaders)")
        }
        let tableBytes = UInt64(count) * programHeaderBytes
        let table = try source.fields(
            of: "ELF program header table", at: header.value(at: 32), count: tableBytes,
            limit: Int(tableBytes))
        return (0..<Int(count)).map { index in
            ProgramHeader(table, at: index * Int(programHeaderBytes))
        }
    }

    private static func loadSegments(
        _ headers: [ProgramHeader], _ source: some ImageSource
    ) throws(KernelImageError) -> [LoadSegment] {
        var segments: [LoadSegment] = []
        for header in headers where header.type == ProgramType.load && header.memoryBytes > 0 {
            let address = GuestAddress(header.physicalAddress)
            guard let range = GuestRange(start: address, count: header.memoryBytes) else {
                throw .unsupported(
                    field: "size of the ELF segment at \(address)", value: header.memoryBytes,
                    allowed: "what ends inside the address space")
            }
            guard header.fileBytes <= header.memoryBytes else {
                throw .unsupported(
                    field: "file size of the ELF segment at \(address)", value: header.fileBytes,
                    allowed: "at most its memory size 0x\(String(header.memoryBytes, radix: 16))")
            }
            try source.requirePart(
                "ELF segment at \(address)", at: header.fileOffset, count: header.fileBytes)
            segments.append(
                LoadSegment(
                    fileOffset: header.fileOffset, fileBytes: header.fileBytes, range: range))
        }
        guard !segments.isEmpty else {
            throw .unsupported(
                field: "count of ELF segments to load", value: 0, allowed: "1 or more")
        }
        try requireDisjoint(segments)
        return segments
    }

    /// So all of them together load no more than fits into memory once.
    private static func requireDisjoint(_ segments: [LoadSegment]) throws(KernelImageError) {
        let ranges = segments.map(\.range).sorted { $0.start < $1.start }
        for (range, next) in zip(ranges, ranges.dropFirst()) where next.overlaps(range) {
            throw .unsupported(
                field: "address of an ELF segment", value: next.start.rawValue,
                allowed: "what lies behind the segment at \(range.start) of \(range.count) bytes")
        }
    }

    private static func findPVHEntry(
        _ headers: [ProgramHeader], _ source: some ImageSource
    ) throws(KernelImageError) -> UInt32 {
        for header in headers where header.type == ProgramType.note {
            let notes = try source.fields(
                of: "ELF note segment", at: header.fileOffset, count: header.fileBytes,
                limit: maximumNoteBytes)
            // Notes are padded to 4 bytes, or to 8 where the segment asks for it (gABI).
            let note = ELFNotes(notes, alignment: header.alignment == 8 ? 8 : 4)
                .first(name: "Xen", type: 18)
            guard let note else { continue }
            let entry: UInt64 = ImageFields(note).value(at: 0)
            switch note.count {
            case 4: return ImageFields(note).value(at: 0)
            case 8 where entry <= UInt64(UInt32.max): return UInt32(entry)
            default:
                throw .unsupported(
                    field: "PVH note's value", value: entry, allowed: "a 32-bit address")
            }
        }
        throw .missingPVHNote
    }
}
