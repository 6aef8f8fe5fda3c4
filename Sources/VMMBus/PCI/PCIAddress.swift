/// Where a PCI function sits: segment, bus, device (0...31) and function (0...7).
package struct PCIAddress: Hashable, Sendable, CustomStringConvertible {
    package let segment: UInt16
    package let bus: UInt8
    package let device: UInt8
    package let function: UInt8

    package init(segment: UInt16 = 0, bus: UInt8 = 0, device: UInt8, function: UInt8 = 0) {
        self.segment = segment
        self.bus = bus
        self.device = device
        self.function = function
    }

    /// As Linux and CH write it: `0000:00:05.0`.
    package var description: String {
        func hex(_ value: some BinaryInteger, _ digits: Int) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        return "\(hex(segment, 4)):\(hex(bus, 2)):\(hex(device, 2)).\(function)"
    }
}
