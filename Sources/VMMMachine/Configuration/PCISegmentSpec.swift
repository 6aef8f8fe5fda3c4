import VMMBase
import VMMFirmware

/// `--pci-segment`: how much of the windows for registers a PCI segment gets, compared with others.
package struct PCISegmentSpec: Decodable, Sendable {
    package static let option = "--pci-segment"
    package static var fields: [OptionField] {
        [
            OptionField("pci_segment", "<n>", "the PCI segment, of num_pci_segments")
                .required.within(0...95 as ClosedRange<UInt16>),
            OptionField(
                "mmio32_aperture_weight", "<n>", "its share of the window below 4 GiB", default: "1"
            ).within(1...UInt32.max),
            OptionField(
                "mmio64_aperture_weight", "<n>", "its share of the window above RAM", default: "1"
            ).within(1...UInt32.max),
        ]
    }

    package let segment: UInt16
    package let lowWeight: UInt32?
    package let highWeight: UInt32?

    private enum CodingKeys: String, CodingKey {
        case segment = "pci_segment"
        case lowWeight = "mmio32_aperture_weight"
        case highWeight = "mmio64_aperture_weight"
    }

    private static func problem(
        _ key: String, _ value: some Any, _ reason: String
    ) -> ConfigurationProblem {
        ConfigurationProblem(option: "\(option) \(key)", value: "\(value)", reason: reason)
    }

    /// The weights of all segments, or what is wrong with what the user said of some.
    static func weights(
        _ specs: [PCISegmentSpec], _ platform: PlatformSpec,
        _ problems: inout [ConfigurationProblem]
    ) -> GuestMemoryLayout.SegmentWeights {
        let count = platform.segmentCount ?? 1
        var weights = GuestMemoryLayout.SegmentWeights()
        for (index, spec) in specs.enumerated() {
            func refuse(_ key: String, _ value: some Any, _ reason: String) {
                problems.append(problem(key, value, reason).at(index))
            }
            if platform.transport == .mmio {
                refuse("pci_segment", spec.segment, "there is no PCI bus with transport=mmio")
            } else if spec.segment >= count {
                refuse(
                    "pci_segment", spec.segment,
                    "expected 0 to \(count - 1), by num_pci_segments")
            } else if specs[..<index].contains(where: { $0.segment == spec.segment }) {
                refuse("pci_segment", spec.segment, "is described twice")
            }
            if spec.lowWeight == 0 { refuse("mmio32_aperture_weight", 0, "expected 1 or more") }
            if spec.highWeight == 0 { refuse("mmio64_aperture_weight", 0, "expected 1 or more") }
            weights.low[Int(spec.segment)] = spec.lowWeight
            weights.high[Int(spec.segment)] = spec.highWeight
        }
        return weights
    }
}
