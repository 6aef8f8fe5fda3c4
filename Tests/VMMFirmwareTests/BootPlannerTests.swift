import Testing
import VMMBase

@testable import VMMFirmware

@Suite("BootPlanner")
struct BootPlannerTests {
    private static let MiB: UInt64 = 1 << 20
    private static let rsdp = GuestBlob(address: GuestMemoryLayout.rsdp, bytes: [1, 2, 3])

    private func planner(ramMiB: UInt64, tables: [GuestBlob] = [rsdp]) throws -> BootPlanner {
        let layout = try GuestMemoryLayout(ramBytes: ramMiB * Self.MiB, physicalAddressBits: 46)
        return BootPlanner(layout: layout, tables: tables)
    }

    private func blob(_ plan: BootPlan, _ address: UInt64) throws -> [UInt8] {
        try #require(plan.blobs.first { $0.address.rawValue == address }?.bytes)
    }

    @Test("an ELF kernel's file parts are loaded at their addresses, without the zeros")
    func elfLoads() throws {
        let plan = try planner(ramMiB: 128).plan(
            kernel: SampleELF.kernel, initramfsBytes: nil, commandLine: "")
        #expect(plan.fileLoads.map(\.fileOffset) == [0x200, 0x300])
        #expect(plan.fileLoads.map(\.byteCount) == [0x100, 0x80])
        #expect(plan.fileLoads.map(\.address.rawValue) == [0x100_0000, 0x200_0000])
        #expect(plan.registers == .pvh(entry: SampleELF.entry))
    }

    @Test("a bzImage's kernel is loaded at 1 MiB")
    func bzImageLoads() throws {
        let plan = try planner(ramMiB: 128).plan(
            kernel: SampleBzImage.kernel, initramfsBytes: 0, commandLine: "")
        #expect(
            plan.fileLoads == [
                FileLoad(
                    source: .kernel, fileOffset: 1024, byteCount: 0x1000,
                    address: GuestAddress(0x10_0000))
            ])
        #expect(plan.registers == .linux(entry: GuestAddress(0x10_0000)))
    }

    @Test("the EBDA pointer, the command line and the tables are there")
    func lowMemory() throws {
        let plan = try planner(ramMiB: 128).plan(
            kernel: SampleELF.kernel, initramfsBytes: nil, commandLine: "quiet")
        #expect(try blob(plan, 0x40e) == [0x00, 0xa0])
        #expect(try blob(plan, 0x20000) == Array("quiet".utf8) + [0])
        #expect(try blob(plan, 0xa0000) == [1, 2, 3])
    }

    @Test("no two blobs and loads share a byte", arguments: [true, false])
    func disjoint(isELF: Bool) throws {
        let kernel = try isELF ? SampleELF.kernel : SampleBzImage.kernel
        let line = String(repeating: "x", count: 2047)
        let plan = try planner(ramMiB: 128).plan(
            kernel: kernel, initramfsBytes: Self.MiB, commandLine: line)
        let ranges =
            (plan.blobs.map { GuestRange(start: $0.address, count: UInt64($0.bytes.count)) }
            + plan.fileLoads.map { GuestRange(start: $0.address, count: $0.byteCount) })
            .compactMap(\.self).sorted { $0.start < $1.start }
        for (lower, upper) in zip(ranges, ranges.dropFirst()) {
            #expect(lower.last < upper.start)
        }
    }

    @Test("the initramfs takes the top of RAM, page-aligned")
    func initramfs() throws {
        let plan = try planner(ramMiB: 128).plan(
            kernel: SampleELF.kernel, initramfsBytes: 5000, commandLine: "")
        #expect(
            plan.fileLoads.last
                == FileLoad(
                    source: .initramfs, fileOffset: 0, byteCount: 5000,
                    address: GuestAddress(128 * Self.MiB - 8192)))
    }

    @Test("the initramfs stays below the 32-bit hole, and below a bzImage's own limit")
    func initramfsOfLargeGuest() throws {
        let planner = try planner(ramMiB: 8192)
        let elf = try planner.plan(
            kernel: SampleELF.kernel, initramfsBytes: Self.MiB, commandLine: "")
        let bzImage = try planner.plan(
            kernel: SampleBzImage.kernel, initramfsBytes: Self.MiB, commandLine: "")
        #expect(elf.fileLoads.last?.address == GuestAddress(3071 * Self.MiB))
        #expect(bzImage.fileLoads.last?.address == GuestAddress(2047 * Self.MiB))
    }

    @Test("an initramfs that fills all room beside the kernel fits, and a byte more does not")
    func largestInitramfs() throws {
        // The bzImage runs in [16 MiB, 48 MiB), so 16 of 64 MiB are left.
        let planner = try planner(ramMiB: 64)
        let free = 16 * Self.MiB
        let plan = try planner.plan(
            kernel: SampleBzImage.kernel, initramfsBytes: free, commandLine: "")
        #expect(plan.fileLoads.last?.address == GuestAddress(48 * Self.MiB))
        #expect(throws: BootError.initramfsTooLarge(bytes: free + 1, free: free)) {
            try planner.plan(
                kernel: SampleBzImage.kernel, initramfsBytes: free + 1, commandLine: "")
        }
    }

    @Test("an initramfs that would cover an ELF kernel's zeros is refused")
    func initramfsOnZeros() throws {
        // The data segment's memory ends 0x4000 bytes after 32 MiB.
        let free = Self.MiB - SampleELF.dataMemoryBytes
        #expect(throws: BootError.initramfsTooLarge(bytes: Self.MiB, free: free)) {
            try planner(ramMiB: 33).plan(
                kernel: SampleELF.kernel, initramfsBytes: Self.MiB, commandLine: "")
        }
        #expect(throws: BootError.initramfsTooLarge(bytes: .max, free: free)) {
            try planner(ramMiB: 33).plan(
                kernel: SampleELF.kernel, initramfsBytes: .max, commandLine: "")
        }
    }

    @Test("a kernel that does not fit in RAM is refused")
    func tooLittleRAM() throws {
        #expect(
            throws: BootError.segmentOutsideRAM(
                address: GuestAddress(0x200_0000), bytes: 0x4000, ramEnd: GuestAddress(0x200_0000))
        ) {
            try planner(ramMiB: 32).plan(
                kernel: SampleELF.kernel, initramfsBytes: nil, commandLine: "")
        }
        #expect(
            throws: BootError.segmentOutsideRAM(
                address: GuestAddress(0x100_0000), bytes: 0x200_0000,
                ramEnd: GuestAddress(0x200_0000))
        ) {
            try planner(ramMiB: 32).plan(
                kernel: SampleBzImage.kernel, initramfsBytes: nil, commandLine: "")
        }
    }

    @Test(
        "a segment below 1 MiB, in the hole or across its edge is refused",
        arguments: [
            0xf_ff00, 0xc000_0000, 0xbfff_ff80, 0xffff_ffff_0000_0000,
        ] as [UInt64])
    func misplacedSegment(address: UInt64) throws {
        let field = SampleELF.programHeaders + 56 + 24
        let file = SampleELF.file.replacing(at: field, with: bytes(address))
        let kernel = try KernelImage.parse(MemoryImage(file))
        #expect(throws: BootError.self) {
            try planner(ramMiB: 8192).plan(kernel: kernel, initramfsBytes: nil, commandLine: "")
        }
    }

    @Test("a kernel that covers a table is refused")
    func coveredTable() throws {
        let table = GuestBlob(address: GuestAddress(0x200_0010), bytes: [1])
        #expect(
            throws: BootError.kernelOverlapsTable(
                segment: GuestAddress(0x200_0000), table: table.address)
        ) {
            try planner(ramMiB: 128, tables: [table]).plan(
                kernel: SampleELF.kernel, initramfsBytes: nil, commandLine: "")
        }
    }

    @Test("the command line may be as long as its room, or as a bzImage allows")
    func longestCommandLine() throws {
        let planner = try planner(ramMiB: 128)
        let longest = String(repeating: "a", count: 65535)
        let plan = try planner.plan(
            kernel: SampleELF.kernel, initramfsBytes: nil, commandLine: longest)
        #expect(try blob(plan, 0x20000).count == 0x10000)
        #expect(throws: BootError.commandLineTooLong(bytes: 65536, limit: 65535)) {
            try planner.plan(
                kernel: SampleELF.kernel, initramfsBytes: nil, commandLine: longest + "a")
        }
        #expect(throws: BootError.commandLineTooLong(bytes: 65535, limit: 2047)) {
            try planner.plan(
                kernel: SampleBzImage.kernel, initramfsBytes: nil, commandLine: longest)
        }
    }

    @Test("a command line with a NUL is refused")
    func commandLineWithNUL() throws {
        #expect(throws: BootError.commandLineHasNUL(offset: 1)) {
            try planner(ramMiB: 128).plan(
                kernel: SampleELF.kernel, initramfsBytes: nil, commandLine: "a\0b")
        }
    }

    @Test("the sentences name what, the value and the limit")
    func sentences() {
        #expect(
            BootError.initramfsTooLarge(bytes: 300 << 20, free: (12 << 20) + 5).description
                == "initramfs of 300 MiB does not fit in guest memory beside the kernel; "
                + "12 MiB are free")
        #expect(
            BootError.segmentOutsideRAM(
                address: GuestAddress(0x100_0000), bytes: 5, ramEnd: GuestAddress(0x1000)
            ).description
                == "kernel segment of 1 MiB at 0x1000000 does not fit in guest memory, "
                + "which ends at 0x1000")
        #expect(
            BootError.commandLineTooLong(bytes: 3000, limit: 2047).description
                == "kernel command line of 3000 bytes is too long; this kernel takes 2047")
        #expect(
            BootError.commandLineHasNUL(offset: 3).description
                == "kernel command line has a NUL character at byte 3")
        #expect(
            BootError.kernelOverlapsTable(segment: GuestAddress(1), table: GuestAddress(2))
                .description == "kernel segment at 0x1 covers the monitor's table at 0x2")
    }
}
