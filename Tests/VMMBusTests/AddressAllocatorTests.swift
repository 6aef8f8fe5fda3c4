import Testing
import VMMBase
import VMMBus

@Suite("AddressAllocator")
struct AddressAllocatorTests {
    private func allocator() throws -> AddressAllocator {
        AddressAllocator(try #require(GuestRange(start: GuestAddress(0x1100), count: 0x2f00)))
    }

    @Test("pieces are aligned, lowest first, and never overlap")
    func order() throws {
        var allocator = try allocator()

        let first = allocator.allocate(count: 0x10, alignment: 0x1000)
        let second = allocator.allocate(count: 0x10, alignment: 0x10)
        let third = allocator.allocate(count: 0x1000, alignment: 0x1000)

        #expect(first?.start == GuestAddress(0x2000))
        #expect(second?.start == GuestAddress(0x1100))
        #expect(third?.start == GuestAddress(0x3000))
    }

    @Test("what does not fit is refused, and a released piece is used again")
    func exhaustion() throws {
        var allocator = try allocator()
        let piece = try #require(allocator.allocate(count: 0x2f00, alignment: 1))

        #expect(allocator.allocate(count: 1, alignment: 1) == nil)
        allocator.release(piece)

        #expect(allocator.allocate(count: 1, alignment: 1)?.start == GuestAddress(0x1100))
        #expect(allocator.allocate(count: .max, alignment: 1) == nil)
    }
}
