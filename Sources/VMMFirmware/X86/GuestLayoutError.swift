/// Why a guest memory layout does not exist.
package enum GuestLayoutError: Error, Hashable, Sendable {
    /// RAM comes in pages of 4 KiB.
    case ramNotPageAligned(bytes: UInt64)
    /// There is no room for a kernel.
    case ramTooSmall(bytes: UInt64, minimum: UInt64)
    /// RAM, the holes and the 64-bit device window do not fit the guest's address width.
    case ramTooLarge(bytes: UInt64, maximum: UInt64, bits: Int)
    /// No x86-64 CPU has such addresses.
    case addressBits(Int, allowed: ClosedRange<Int>)
}

extension GuestLayoutError: CustomStringConvertible {
    /// The sentence for the user.
    package var description: String {
        switch self {
        case .ramNotPageAligned(let bytes):
            "memory of \(bytes) bytes is not a multiple of 4096 bytes"
        case .ramTooSmall(let bytes, let minimum):
            "memory of \(bytes) bytes is too small; the least is \(minimum) bytes"
        case .ramTooLarge(let bytes, let maximum, let bits):
            "memory of \(bytes >> 20) MiB is too large; with \(bits) physical address bits "
                + "the most is \(maximum >> 20) MiB"
        case .addressBits(let bits, let allowed):
            "\(bits) physical address bits; allowed are \(allowed.lowerBound) to "
                + "\(allowed.upperBound)"
        }
    }
}
