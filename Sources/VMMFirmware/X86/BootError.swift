import VMMBase

/// Why a kernel that was understood cannot be started on this machine.
package enum BootError: Error, Hashable, Sendable {
    /// `bytes` are without the final NUL; `limit` is the kernel's or the layout's, the smaller.
    case commandLineTooLong(bytes: Int, limit: Int)
    /// The guest would see only the part before the NUL.
    case commandLineHasNUL(offset: Int)
    /// A part of the kernel would lie in a hole, below 1 MiB or past the end of RAM.
    case segmentOutsideRAM(address: GuestAddress, bytes: UInt64, ramEnd: GuestAddress)
    /// `free` bytes lie between the kernel and the highest place that the initramfs may take.
    case initramfsTooLarge(bytes: UInt64, free: UInt64)
    /// The PVH or 32-bit entry would find a table of the monitor where the kernel wants to be.
    case kernelOverlapsTable(segment: GuestAddress, table: GuestAddress)
}

extension BootError: CustomStringConvertible {
    /// The sentence for the user.
    package var description: String {
        switch self {
        case .commandLineTooLong(let bytes, let limit):
            "kernel command line of \(bytes) bytes is too long; this kernel takes \(limit)"
        case .commandLineHasNUL(let offset):
            "kernel command line has a NUL character at byte \(offset)"
        case .segmentOutsideRAM(let address, let bytes, let ramEnd):
            "kernel segment of \(Self.mebibytes(bytes)) at \(address) does not fit in guest "
                + "memory, which ends at \(ramEnd)"
        case .initramfsTooLarge(let bytes, let free):
            "initramfs of \(Self.mebibytes(bytes)) does not fit in guest memory beside the "
                + "kernel; \(Self.mebibytes(free, .down)) are free"
        case .kernelOverlapsTable(let segment, let table):
            "kernel segment at \(segment) covers the monitor's table at \(table)"
        }
    }

    /// Sizes that do not fit are rounded up, sizes that are free are rounded down.
    private static func mebibytes(
        _ bytes: UInt64, _ rounding: FloatingPointRoundingRule = .up
    ) -> String {
        let whole = bytes >> 20
        let isExact = bytes & 0xf_ffff == 0
        return "\(rounding == .up && !isExact ? whole + 1 : whole) MiB"
    }
}
