import VMMBase
import VMMFirmware

/// `--platform`.
package struct PlatformSpec: Decodable, Sendable {
    package static let option = "--platform"
    package static var fields: [OptionField] {
        [
            OptionField(
                "transport", "pci|mmio", "where the guest finds the virtio devices",
                default: "pci"),
            OptionField(
                "num_pci_segments", "<n>", "PCI buses, each of its own segment", default: "1"),
            OptionField(
                "ring", "split|packed", "the format that their queues have", default: "split"),
        ]
    }

    /// How virtio devices are connected.
    package enum Transport: String, OptionChoice, Decodable, Sendable {
        case pci
        case mmio
    }

    /// What is offered to drivers: the packed format, which they may leave alone, or not.
    package enum Ring: String, OptionChoice, Decodable, Sendable {
        case split
        case packed
    }

    package var transport: Transport? = nil
    package var ring: Ring? = nil
    package var segmentCount: Int? = nil

    private enum CodingKeys: String, CodingKey {
        case transport
        case ring
        case segmentCount = "num_pci_segments"
    }

    package init() {}

    func problem(_ key: String, _ value: String, _ reason: String) -> ConfigurationProblem {
        ConfigurationProblem(option: "\(Self.option) \(key)", value: value, reason: reason)
    }

    /// The PCI segments of a machine with this layout; none with `transport=mmio`.
    func segments(
        _ layout: GuestMemoryLayout, _ weights: GuestMemoryLayout.SegmentWeights
    ) throws(ConfigurationProblem) -> [PCISegment] {
        let count = segmentCount ?? 1
        let key = "num_pci_segments"
        guard (1...GuestMemoryLayout.segmentLimit).contains(count) else {
            throw problem(key, "\(count)", "expected 1 to \(GuestMemoryLayout.segmentLimit)")
        }
        guard transport != .mmio else {
            guard segmentCount == nil else {
                throw problem(key, "\(count)", "there is no PCI bus with transport=mmio")
            }
            return []
        }
        guard let segments = layout.pciSegments(count, weights) else {
            throw problem(
                key, "\(count)",
                "addresses of \(layout.physicalAddressBits) bits leave no room for so many"
                    + (weights.low.isEmpty && weights.high.isEmpty ? "" : " of these weights"))
        }
        return segments
    }
}
