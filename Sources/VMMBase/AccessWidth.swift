/// The width of one register access, in bytes: what a CPU can do in one port or MMIO access.
package enum AccessWidth: UInt8, Sendable, CaseIterable {
    case byte = 1
    case word = 2
    case doubleWord = 4
    case quadWord = 8

    @inlinable
    package var byteCount: Int { Int(rawValue) }

    /// All bits of this width set: what a read of an address that nobody claims returns.
    @inlinable
    package var allOnes: UInt64 { UInt64.max >> (64 &- 8 * UInt64(rawValue)) }
}
