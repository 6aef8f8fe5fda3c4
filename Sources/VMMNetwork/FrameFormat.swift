import VMMHost

/// What stands on a socket for one frame.
package struct FrameFormat: Equatable, Sendable {
    /// The frame alone, finished: with its checksums and no longer than the MTU allows.
    package static let plain = FrameFormat(headerByteCount: 0)
    /// The 12-byte header of virtio-net before it, which says what is left undone in the frame.
    package static let offloads = FrameFormat(
        headerByteCount: Int(TapInterface.headerByteCount))

    /// Bytes before the Ethernet header.
    package let headerByteCount: Int

    /// How many bytes a frame has with what stands before it.
    package var lengths: ClosedRange<Int> {
        FrameLength.least + headerByteCount...FrameLength.most + headerByteCount
    }
}

/// The lengths of Ethernet frames that we carry, in bytes.
package enum FrameLength {
    /// Two addresses and a type.
    package static let least = 14
    /// The largest IP packet behind a header with a VLAN tag.
    package static let most = 65535 + 14 + 4
    /// What stands before each frame of a stream: its length, big endian (as QEMU and passt have
    /// it).
    package static let prefix = 4
}
