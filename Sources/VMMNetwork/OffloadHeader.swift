import VMMHost

/// The header before a frame that a peer sent (VirtIO 1.3, 5.1.6): what it left undone in the
/// frame. The peer is as hostile as a guest.
package struct OffloadHeader: Equatable, Sendable {
    /// What becomes of a frame.
    package enum Verdict: Equatable, Sendable {
        case sound
        /// What the header says of the frame cannot be.
        case malformed
        /// The guest's driver has not agreed to do what is left undone.
        case unwanted
    }

    private enum Flag {
        static let needsChecksum: UInt8 = 1
    }

    /// Kinds of segmentation, and the bit for congestion notification beside them.
    private enum Segmentation {
        static let none: UInt8 = 0
        static let tcp4: UInt8 = 1
        static let udp: UInt8 = 3
        static let tcp6: UInt8 = 4
        static let udpSegments: UInt8 = 5
        static let congestion: UInt8 = 0x80
    }

    /// Behind the Ethernet header at the earliest.
    private static let leastStart = UInt16(FrameLength.least)

    private let flags: UInt8
    private let segmentation: UInt8
    private let headerByteCount: UInt16
    private let segmentByteCount: UInt16
    private let checksumStart: UInt16
    private let checksumOffset: UInt16

    /// The header of 12 bytes from `start`, which are there.
    package init(_ bytes: [UInt8], at start: Int) {
        func number(_ offset: Int) -> UInt16 {
            UInt16(bytes[start + offset]) | UInt16(bytes[start + offset + 1]) << 8
        }
        flags = bytes[start]
        segmentation = bytes[start + 1]
        headerByteCount = number(2)
        segmentByteCount = number(4)
        checksumStart = number(6)
        checksumOffset = number(8)
    }

    /// Whether a guest that takes `offloads` may see a frame of so many bytes with this header.
    package func verdict(
        frameByteCount: Int, accepting offloads: TapInterface.Offloads
    ) -> Verdict {
        guard isChecksumInside(frameByteCount), isSegmentationSound(frameByteCount),
            let needed
        else { return .malformed }
        return offloads.isSuperset(of: needed) ? .sound : .unwanted
    }

    private var needsChecksum: Bool { flags & Flag.needsChecksum != 0 }
    private var kind: UInt8 { segmentation & ~Segmentation.congestion }
    private var isSegmented: Bool { kind != Segmentation.none }

    private func isChecksumInside(_ frameByteCount: Int) -> Bool {
        !needsChecksum
            || checksumStart >= Self.leastStart
                && Int(checksumStart) + Int(checksumOffset) + 2 <= frameByteCount
    }

    /// Each segment gets a checksum of its own (5.1.6.2.1); congestion is a matter of TCP.
    private func isSegmentationSound(_ frameByteCount: Int) -> Bool {
        guard isSegmented else { return segmentation == Segmentation.none }
        let isTCP = kind == Segmentation.tcp4 || kind == Segmentation.tcp6
        return needsChecksum && segmentByteCount > 0 && Int(headerByteCount) <= frameByteCount
            && (isTCP || segmentation & Segmentation.congestion == 0)
    }

    /// What the guest's driver has to have agreed to; nil for a kind that there is not.
    private var needed: TapInterface.Offloads? {
        var needed: TapInterface.Offloads = needsChecksum ? .checksum : []
        switch kind {
        case Segmentation.none: break
        case Segmentation.tcp4: needed.insert(.tcp4)
        case Segmentation.tcp6: needed.insert(.tcp6)
        case Segmentation.udp: needed.insert(.udp)
        // Either version of IP may be inside: a driver that takes only one gets neither.
        case Segmentation.udpSegments: needed.formUnion([.udpSegments4, .udpSegments6])
        default: return nil
        }
        if segmentation & Segmentation.congestion != 0 { needed.insert(.congestion) }
        return needed
    }

    /// Writes the header at `start`, where it came from, with nothing in it that means nothing:
    /// what a peer says of checksums that it has verified is not for the guest to believe.
    package func write(to bytes: inout [UInt8], at start: Int) {
        bytes[start] = flags & Flag.needsChecksum
        if !isSegmented { for offset in 1..<6 { bytes[start + offset] = 0 } }
        if !needsChecksum { for offset in 6..<10 { bytes[start + offset] = 0 } }
        // The number of buffers is ours to say.
        for offset in 10..<12 { bytes[start + offset] = 0 }
    }

    /// What becomes of a frame in `bytes`, header included; one that is sound has a clean header
    /// then. A format without headers leaves nothing to judge.
    package static func judge(
        _ frame: Range<Int>, of bytes: inout [UInt8], _ format: FrameFormat,
        accepting offloads: TapInterface.Offloads
    ) -> Verdict {
        guard format.headerByteCount > 0 else { return .sound }
        let header = OffloadHeader(bytes, at: frame.lowerBound)
        let verdict = header.verdict(
            frameByteCount: frame.count - format.headerByteCount, accepting: offloads)
        if verdict == .sound { header.write(to: &bytes, at: frame.lowerBound) }
        return verdict
    }
}
