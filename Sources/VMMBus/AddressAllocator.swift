import VMMBase

/// Hands out aligned, non-overlapping pieces of one address range, lowest first.
package struct AddressAllocator: Sendable {
    private let window: GuestRange
    /// Taken pieces, sorted by start.
    private var taken: [GuestRange] = []

    package init(_ window: GuestRange) {
        self.window = window
    }

    /// A piece of `count` bytes whose start is a multiple of `alignment`; nil when none is left.
    package mutating func allocate(count: UInt64, alignment: UInt64) -> GuestRange? {
        var candidate = window.start
        for index in 0...taken.count {
            guard let start = Self.roundUp(candidate, alignment),
                let piece = GuestRange(start: start, count: count), piece.last <= window.last
            else { return nil }
            if index == taken.count || piece.last < taken[index].start {
                taken.insert(piece, at: index)
                return piece
            }
            guard let next = taken[index].last.advanced(by: 1) else { return nil }
            candidate = next
        }
        return nil
    }

    package mutating func release(_ piece: GuestRange) {
        taken.removeAll { $0 == piece }
    }

    private static func roundUp(_ address: GuestAddress, _ alignment: UInt64) -> GuestAddress? {
        let excess = address.rawValue % alignment
        return excess == 0 ? address : address.advanced(by: alignment - excess)
    }
}
