import VMMBase

/// The keys by which a device says where it is on PCI.
package struct PlaceOptions: Decodable, Hashable, Sendable {
    package static var fields: [OptionField] {
        [
            OptionField("pci_segment", "<n>", "the PCI segment", default: "0")
                .within(0...95 as ClosedRange<UInt16>),
            OptionField(
                "pci_device_id", "<n>", "device number on the PCI bus", default: "the next free"
            ).within(0...31 as ClosedRange<UInt8>),
        ]
    }

    /// nil for segment 0.
    package let segment: UInt16?
    /// nil for any number that is free.
    package let device: UInt8?

    private enum CodingKeys: String, CodingKey {
        case segment = "pci_segment"
        case device = "pci_device_id"
    }

    /// Wherever there is room on segment 0, unless said otherwise.
    package init(segment: UInt16? = nil, device: UInt8? = nil) {
        self.segment = segment
        self.device = device
    }
}
