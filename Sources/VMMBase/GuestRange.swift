/// A non-empty run of guest-physical addresses whose end does not pass the address space.
package struct GuestRange: Hashable, Sendable {
    package let start: GuestAddress
    /// Length in bytes, at least 1.
    package let count: UInt64

    /// Nil when `count` is zero or the range would pass the end of the 64-bit address space.
    @inlinable
    package init?(start: GuestAddress, count: UInt64) {
        guard count > 0, start.advanced(by: count &- 1) != nil else { return nil }
        self.start = start
        self.count = count
    }

    /// The last address inside the range.
    @inlinable
    package var last: GuestAddress { GuestAddress(start.rawValue &+ (count &- 1)) }

    /// How far `address` lies inside the range in bytes, or nil when it lies outside.
    @inlinable
    package func offset(of address: GuestAddress) -> UInt64? {
        guard let offset = address.offset(from: start), offset < count else { return nil }
        return offset
    }

    @inlinable
    package func overlaps(_ other: GuestRange) -> Bool {
        start <= other.last && other.start <= last
    }
}

extension GuestRange: CustomStringConvertible {
    package var description: String { "[\(start), \(last)]" }
}
