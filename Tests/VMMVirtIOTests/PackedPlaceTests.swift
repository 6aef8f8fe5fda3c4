import Testing

@testable import VMMVirtIO

@Suite("PackedPlace")
struct PackedPlaceTests {
    @Test("a place goes round the ring, and its wrap counter changes with each lap")
    func laps() {
        var place = PackedPlace(0x8000)
        let bits = (0..<7).map { _ in
            place.advance(by: 2, size: 5)
            return place.bits
        }
        // Slots 2, 4, 1, 3, 0, 2, 4 of a ring of five.
        #expect(bits == [0x8002, 0x8004, 1, 3, 0x8000, 0x8002, 0x8004])
    }

    @Test("the largest ring is gone round in one step")
    func largest() {
        var place = PackedPlace(0x7fff)
        place.advance(by: 32768, size: 32768)
        #expect(place.bits == 0xffff)
    }

    @Test(
        "a distance counts slots, over the end of the ring as well",
        arguments: [
            (0x8003, 0x8001, 2), (0x8001, 0x8001, 0), (0, 0x8004, 1), (1, 0x8001, 5),
            (0x8001, 0x8003, 8), (0x8004, 0, 9),
        ] as [(UInt16, UInt16, Int)])
    func distance(place: UInt16, earlier: UInt16, expected: Int) {
        #expect(PackedPlace(place).distance(from: PackedPlace(earlier), size: 5) == expected)
    }
}
