import Testing
import VMMBase

@Suite("GuestAddress")
struct GuestAddressTests {
    @Test("an advance past the end of the address space gives nil, not a trap")
    func advancePastEnd() {
        #expect(GuestAddress(.max).advanced(by: 1) == nil)
        #expect(GuestAddress(.max - 1).advanced(by: 1) == GuestAddress(.max))
    }

    @Test("an offset below the base gives nil")
    func offsetBelowBase() {
        #expect(GuestAddress(4).offset(from: GuestAddress(5)) == nil)
        #expect(GuestAddress(9).offset(from: GuestAddress(5)) == 4)
    }

    @Test("a range that is empty or passes the end does not exist")
    func impossibleRanges() {
        #expect(GuestRange(start: GuestAddress(0), count: 0) == nil)
        #expect(GuestRange(start: GuestAddress(.max), count: 2) == nil)
        #expect(GuestRange(start: GuestAddress(.max), count: 1)?.last == GuestAddress(.max))
    }
}
