/// A slot of a packed ring, and the wrap counter of the lap that reaches it (VirtIO 1.3, 2.8.1).
struct PackedPlace {
    private static let wrapBit: UInt16 = 0x8000

    private(set) var index: UInt16
    private(set) var wrap: Bool

    /// As in an event suppression structure: the counter is bit 15.
    init(_ bits: UInt16) {
        index = bits & ~Self.wrapBit
        wrap = bits & Self.wrapBit != 0
    }

    var bits: UInt16 { index | (wrap ? Self.wrapBit : 0) }

    /// Goes on by at most `size` slots of a ring of `size`.
    mutating func advance(by slots: UInt16, size: UInt16) {
        // Neither is above 32768 and the index is below it: the sum has 16 bits.
        let sum = index &+ slots
        if sum >= size { wrap.toggle() }
        index = sum >= size ? sum &- size : sum
    }

    /// How many slots `earlier` lies behind, modulo two laps. A place that is not in the ring is
    /// some number of slots away, too.
    func distance(from earlier: PackedPlace, size: UInt16) -> Int {
        let lap = wrap == earlier.wrap ? 0 : Int(size)
        let slots = Int(index) &- Int(earlier.index) &+ lap
        return slots < 0 ? slots &+ 2 &* Int(size) : slots
    }
}
