import VMMBase

/// How PCI segments share the windows for BARs.
extension GuestMemoryLayout {
    /// As many segments as Cloud Hypervisor has at most.
    package static let segmentLimit = 96

    /// What a segment's pieces of the windows are worth compared with those of others, by its
    /// number; 1 where nothing is said.
    package struct SegmentWeights: Sendable {
        package var low: [Int: UInt32] = [:]
        package var high: [Int: UInt32] = [:]

        package init() {}
    }

    /// `count` segments (1 to `segmentLimit`) with their pieces of both windows, of which the last
    /// also has what is left over; nil when the windows are too small for so many.
    package func pciSegments(
        _ count: Int, _ weights: SegmentWeights = SegmentWeights()
    ) -> [PCISegment]? {
        guard (1...Self.segmentLimit).contains(count) else { return nil }
        func all(_ given: [Int: UInt32]) -> [UInt64] {
            (0..<count).map { UInt64(given[$0] ?? 1) }
        }
        let low = Self.pieces(of: Self.mmio32Hole, all(weights.low), alignment: Self.pageBytes)
        let high = Self.pieces(
            of: mmio64Window, all(weights.high), alignment: Self.mmio64Alignment)
        guard let low, let high else { return nil }
        return (0..<count).compactMap { index in
            let number = UInt16(index)
            return Self.ecam(segment: number).map {
                PCISegment(number: number, ecam: $0, mmio32: low[index], mmio64: high[index])
            }
        }
    }

    /// At most 96 weights of 32 bits: their sum fits easily, and a window is a multiple of it.
    private static func pieces(
        of window: GuestRange, _ weights: [UInt64], alignment: UInt64
    ) -> [GuestRange]? {
        guard weights.count > 1 else { return [window] }
        let sum = weights.reduce(0, +)
        guard sum > 0 else { return nil }
        let unit = window.count / sum / alignment * alignment
        guard unit > 0, weights.allSatisfy({ $0 > 0 }) else { return nil }
        var used: UInt64 = 0
        return weights.enumerated().map { index, weight in
            let start = used
            used += weight * unit
            let isLast = index == weights.count - 1
            return range(
                window.start.rawValue + start, isLast ? window.count - start : weight * unit)
        }
    }
}
