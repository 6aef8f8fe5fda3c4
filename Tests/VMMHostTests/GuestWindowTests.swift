import Testing
import VMMBase
import VMMHost

@Suite("GuestWindow")
struct GuestWindowTests {
    /// Address, length and alignment that make no window.
    private static let bad: [(UInt64, Int, UInt64)] = [
        (0, 0, 1), (0, -1, 1), (0, .min, 1), (8, 8, 16), (1, 2, 2),
        (TestMemory.regionByteCount - 8, 9, 1), (TestMemory.regionByteCount, 1, 1),
        (.max, 1, 1), (0, .max, 1), (.max - 15, 32, 16),
    ]

    @Test("a window needs RAM of one region and its alignment", arguments: bad)
    func refuses(address: UInt64, count: Int, alignment: UInt64) throws {
        let memory = try TestMemory.make()
        let window = GuestWindow(
            memory, at: GuestAddress(address), count: count, alignment: alignment)
        #expect(window == nil)
    }

    @Test("fields are little-endian and reach the window's last byte")
    func fields() throws {
        let memory = try TestMemory.make()
        let start = GuestAddress(TestMemory.regionByteCount - 16)
        let window = try #require(GuestWindow(memory, at: start, count: 16, alignment: 16))

        window.store32(8, 0x4433_2211)
        window.store16(12, 0x6655)
        window.storeRelease16(14, 0x8877)

        #expect(window.load64(8) == 0x8877_6655_4433_2211)
        #expect(window.load32(12) == 0x8877_6655)
        #expect(window.load16(14) == 0x8877)
        #expect(window.loadAcquire16(12) == 0x6655)
        #expect(
            memory.copyOut(start, count: 16)?[8...] == [
                0x11, 0x22, 0x33, 0x44, 0x55, 0x66,
                0x77, 0x88,
            ])
    }

    @Test("ordered accesses of 64 bits are all or nothing of a window's last eight bytes")
    func ordered() throws {
        let window = try #require(
            GuestWindow(try TestMemory.make(), at: GuestAddress(0), count: 16, alignment: 16))
        window.storeRelease64(8, 0x8877_6655_4433_2211)
        #expect(window.loadAcquire64(8) == 0x8877_6655_4433_2211)
        #expect(window.load16(8) == 0x2211 && window.load64(0) == 0)
    }

    @Test("a window keeps its memory mapped")
    func keepsMemory() throws {
        var memory: GuestMemory? = try TestMemory.make()
        let window = try #require(
            memory.flatMap { GuestWindow($0, at: GuestAddress(0), count: 8, alignment: 8) })
        memory = nil
        window.store32(4, 7)
        #expect(window.load32(4) == 7)
    }
}
