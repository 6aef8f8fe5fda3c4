/// A guest-physical address. It has no `+`: a guest chooses these values, and an addition that
/// overflows would trap the monitor.
package struct GuestAddress: Hashable, Comparable, Sendable {
    package let rawValue: UInt64

    @inlinable
    package init(_ rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// The address `count` bytes further on, or nil where the address space ends before it.
    @inlinable
    package func advanced(by count: UInt64) -> GuestAddress? {
        let (sum, overflow) = rawValue.addingReportingOverflow(count)
        return overflow ? nil : GuestAddress(sum)
    }

    /// How many bytes lie between `base` and this address, or nil when the address is below it.
    @inlinable
    package func offset(from base: GuestAddress) -> UInt64? {
        rawValue >= base.rawValue ? rawValue &- base.rawValue : nil
    }

    @inlinable
    package static func < (left: GuestAddress, right: GuestAddress) -> Bool {
        left.rawValue < right.rawValue
    }
}

extension GuestAddress: CustomStringConvertible {
    package var description: String { "0x" + String(rawValue, radix: 16) }
}
