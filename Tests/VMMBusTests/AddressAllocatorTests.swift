import Testing
import VMMBase
import VMMBus

@Suite("AddressAllocator")
struct AddressAllocatorTests {
    private func makeAllocator() throws -> AddressAllocator {
        AddressAllocator(try #require(GuestRange(start: GuestAddress(0x1100), count: 0x2f00)))
    }

    @Test("pieces are aligned, lowest first, and never overlap")
    func order() throws {
        var allocator = try makeAllocator()

        let first = allocator.allocate(count: 0x10, alignment: 0x1000)
        let second = allocator.allocate(count: 0x10, alignment: 0x10)
        let third = allocator.allocate(count: 0x1000, alignment: 0x1000)

        #expect(first?.start == GuestAddress(0x2000))
        #expect(second?.start == GuestAddress(0x1100))
        #expect(third?.start == GuestAddress(0x3000))
    }

    @Test("what does not fit is refused, and a released piece is used again")
    func exhaustion() throws {
        var allocator = try makeAllocator()
        let whole = allocator.allocate(count: 0x2f00, alignment: 1)
        let piece = try #require(whole)

        let none = allocator.allocate(count: 1, alignment: 1)
        #expect(none == nil)
        allocator.release(piece)

        let again = allocator.allocate(count: 1, alignment: 1)
        let tooLarge = allocator.allocate(count: .max, alignment: 1)

        #expect(again?.start == GuestAddress(0x1100))
        #expect(tooLarge == nil)
    }
}
