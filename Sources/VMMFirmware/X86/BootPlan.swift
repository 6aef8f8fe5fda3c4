import VMMBase

/// A part of a file that goes into guest memory as it is, without passing through the monitor.
package struct FileLoad: Hashable, Sendable {
    /// The files that a boot reads.
    package enum Source: Sendable {
        /// The kernel or firmware.
        case kernel
        /// The initial RAM file system.
        case initramfs
    }

    /// Which file.
    package let source: Source
    /// Where the bytes start in it.
    package let fileOffset: UInt64
    /// How many bytes, at least 1.
    package let byteCount: UInt64
    /// Guest-physical address of the first byte.
    package let address: GuestAddress
}

/// All that goes into a fresh guest's memory, which is zero elsewhere, and into the first vCPU.
/// No two entries of it share a byte of guest memory, as long as the kernel's segments do not.
package struct BootPlan: Hashable, Sendable {
    /// Parts of files.
    package let fileLoads: [FileLoad]
    /// Small structures that the monitor made.
    package let blobs: [GuestBlob]
    /// The first vCPU's registers; the others wait for the guest's start-up IPI.
    package let registers: BootRegisters
}
