import Testing
import VMMBase

@testable import VMMFirmware

@Suite("GuestMemoryLayout")
struct GuestMemoryLayoutTests {
    private static let GiB: UInt64 = 1 << 30

    private func layout(_ ram: UInt64, bits: Int = 46) throws(GuestLayoutError) -> GuestMemoryLayout
    {
        try GuestMemoryLayout(ramBytes: ram, physicalAddressBits: bits)
    }

    @Test("RAM up to 3 GiB is one range", arguments: [GiB / 8, GiB, 3 * GiB])
    func lowRAM(ram: UInt64) throws {
        let layout = try layout(ram)
        #expect(layout.ramRanges == [GuestRange(start: GuestAddress(0), count: ram)])
        #expect(layout.ramEnd == GuestAddress(ram))
        #expect(layout.lowRAMEnd == GuestAddress(ram))
        #expect(layout.mmio64Window.start == GuestAddress(4 * Self.GiB))
    }

    @Test("segments share the windows, each with its own configuration space", arguments: 1...96)
    func segments(count: Int) throws {
        let layout = try layout(5 * Self.GiB)
        let segments = try #require(layout.pciSegments(count))
        #expect(segments.map(\.number) == (0..<UInt16(count)).map { $0 })
        #expect(
            segments.map(\.ecam.start.rawValue)
                == segments.map {
                    0xe800_0000 + UInt64($0.number) << 20
                })
        for (next, windows) in [
            (GuestMemoryLayout.mmio32Hole, segments.map(\.mmio32)),
            (layout.mmio64Window, segments.map(\.mmio64)),
        ] {
            #expect(windows.first?.start == next.start && windows.last?.last == next.last)
            #expect(windows.map(\.count).reduce(0, +) == next.count)
            #expect(zip(windows, windows.dropFirst()).allSatisfy { $0.last < $1.start })
        }
        #expect(segments.allSatisfy { $0.mmio64.start.rawValue % (4 * Self.GiB) == 0 })
    }

    @Test("weights say how segments share the windows")
    func weights() throws {
        let layout = try layout(5 * Self.GiB)
        var weights = GuestMemoryLayout.SegmentWeights()
        weights.low = [1: 3]
        weights.high = [0: 2, 2: 5]
        let segments = try #require(layout.pciSegments(3, weights))
        let low = GuestMemoryLayout.mmio32Hole.count
        #expect(segments.map(\.mmio32.count) == [low / 5, low / 5 * 3, low / 5])
        let high = segments.map(\.mmio64.count)
        #expect(high[0] == 2 * high[1] && high[2] >= 5 * high[1])
        #expect(segments[2].mmio64.last == layout.mmio64Window.last)
        #expect(zip(segments, segments.dropFirst()).allSatisfy { $0.mmio64.last < $1.mmio64.start })
        // A page of the window for each, and there are not so many.
        weights.low = [0: .max]
        #expect(layout.pciSegments(3, weights) == nil)
    }

    @Test("more segments than there are, or than narrow addresses have room for, are none")
    func tooManySegments() throws {
        #expect(try layout(Self.GiB).pciSegments(97) == nil)
        #expect(try layout(Self.GiB).pciSegments(0) == nil)
        #expect(try layout(Self.GiB, bits: 36).pciSegments(96) == nil)
        #expect(try layout(Self.GiB, bits: 36).pciSegments(14) != nil)
    }

    @Test("RAM above 3 GiB goes on at 4 GiB")
    func splitRAM() throws {
        let layout = try layout(5 * Self.GiB)
        #expect(layout.ramRanges.map(\.start.rawValue) == [0, 4 * Self.GiB])
        #expect(layout.ramRanges.map(\.count) == [3 * Self.GiB, 2 * Self.GiB])
        #expect(layout.ramEnd == GuestAddress(6 * Self.GiB))
        #expect(layout.lowRAMEnd == GuestAddress(3 * Self.GiB))
        #expect(layout.mmio64Window.start == GuestAddress(8 * Self.GiB))
    }

    @Test("one page above 3 GiB makes a second range of one page")
    func smallSplit() throws {
        let layout = try layout(3 * Self.GiB + 4096)
        #expect(layout.ramRanges.last == GuestRange(start: GuestAddress(4 * Self.GiB), count: 4096))
    }

    @Test("the 64-bit window ends where the platform's registers begin", arguments: 36...52)
    func windows(bits: Int) throws {
        let layout = try layout(Self.GiB, bits: bits)
        let top = UInt64(1) << bits
        #expect(layout.platformWindow.start.rawValue == top - 0x11_0000)
        #expect(layout.platformWindow.count == 0x10_0000)
        #expect(layout.mmio64Window.last.rawValue + 1 == layout.platformWindow.start.rawValue)
    }

    @Test("platform registers have a page each, from the top down")
    func platformRegisters() throws {
        let layout = try layout(Self.GiB, bits: 40)
        let end = (UInt64(1) << 40) - 0x1_0000
        #expect(
            PlatformDevice.allCases.map { layout.registers(of: $0).rawValue }
                == [end - 0x1000, end - 0x2000, end - 0x3000, end - 0x4000])
    }

    @Test("the memory map has low RAM, middle RAM and the ECAM")
    func memoryMap() throws {
        let map = try layout(Self.GiB).memoryMap
        #expect(map.map(\.range.start.rawValue) == [0, 0x10_0000, 0xe800_0000])
        #expect(map.map(\.range.count) == [0xa_0000, 0x3ff0_0000, 0x1000_0000])
        #expect(map.map(\.kind) == [.ram, .ram, .reserved])
    }

    @Test("the memory map of a large guest ends with the RAM above 4 GiB")
    func largeMemoryMap() throws {
        let map = try layout(4 * Self.GiB).memoryMap
        #expect(map.map(\.range.start.rawValue) == [0, 0x10_0000, 0xe800_0000, 0x1_0000_0000])
        #expect(map.last?.range.count == Self.GiB)
        #expect(map.map(\.kind) == [.ram, .ram, .reserved, .ram])
    }

    @Test("the largest RAM leaves a 64-bit window, and a page more is refused")
    func largestRAM() throws {
        // 36 bits are 64 GiB; the topmost 4 GiB hold the window and the hole takes 1 GiB.
        let largest = 59 * Self.GiB
        #expect(try layout(largest, bits: 36).mmio64Window.count == 4 * Self.GiB - 0x11_0000)
        #expect(
            throws: GuestLayoutError.ramTooLarge(
                bytes: largest + 4096, maximum: largest, bits: 36)
        ) {
            try layout(largest + 4096, bits: 36)
        }
    }

    @Test("RAM that is too small, uneven or too wide is refused")
    func refusals() {
        #expect(throws: GuestLayoutError.ramTooSmall(bytes: 0, minimum: 0x10_1000)) {
            try layout(0)
        }
        #expect(throws: GuestLayoutError.ramNotPageAligned(bytes: Self.GiB + 1)) {
            try layout(Self.GiB + 1)
        }
        #expect(throws: GuestLayoutError.addressBits(53, allowed: 36...52)) {
            try layout(Self.GiB, bits: 53)
        }
        #expect(throws: GuestLayoutError.self) { try layout(.max - 4095, bits: 52) }
    }

    @Test("the sentences name the values")
    func sentences() {
        #expect(
            GuestLayoutError.ramTooLarge(bytes: 2 << 40, maximum: 1 << 40, bits: 40).description
                == "memory of 2097152 MiB is too large; with 40 physical address bits the most is "
                + "1048576 MiB")
        #expect(
            GuestLayoutError.ramNotPageAligned(bytes: 5).description
                == "memory of 5 bytes is not a multiple of 4096 bytes")
        #expect(
            GuestLayoutError.ramTooSmall(bytes: 1, minimum: 2).description
                == "memory of 1 bytes is too small; the least is 2 bytes")
        #expect(
            GuestLayoutError.addressBits(35, allowed: 36...52).description
                == "35 physical address bits; allowed are 36 to 52")
    }

    @Test("each PCI segment has a MiB of configuration space, for 256 segments")
    func ecam() {
        #expect(GuestMemoryLayout.ecam(segment: 0)?.start == GuestAddress(0xe800_0000))
        #expect(GuestMemoryLayout.ecam(segment: 255)?.start == GuestAddress(0xf7f0_0000))
        #expect(GuestMemoryLayout.ecam(segment: 256) == nil)
    }

    @Test("no two of the fixed holes overlap")
    func holes() {
        let holes = [
            GuestMemoryLayout.mmio32Hole, GuestMemoryLayout.ecam, GuestMemoryLayout.tss,
            GuestMemoryLayout.identityMap, GuestMemoryLayout.ioapic, GuestMemoryLayout.tpm,
            GuestMemoryLayout.msiWindow,
        ]
        for (lower, upper) in zip(holes, holes.dropFirst()) {
            #expect(lower.last < upper.start)
        }
    }
}
