import VMMBase

/// One descriptor of a resource template (ACPI 6.5, 6.4).
package struct AMLResource: Hashable, Sendable {
    /// The descriptor's encoding.
    package let bytes: [UInt8]

    /// What an address space descriptor hands from a bridge to its children; minimum and maximum
    /// are fixed, decoding is positive.
    private enum Space: UInt8 {
        case memory = 0
        case io = 1
        case busNumber = 2

        /// Memory is writable and not cacheable; the whole I/O range is decoded.
        var flags: UInt8 {
            switch self {
            case .memory: 1
            case .io: 3
            case .busNumber: 0
            }
        }
    }

    private init(_ bytes: ByteBuilder) {
        self.bytes = bytes.bytes
    }

    /// Bus numbers that a bridge produces.
    package static func busNumbers(_ buses: ClosedRange<UInt8>) -> AMLResource {
        word(.busNumber, UInt16(buses.lowerBound)...UInt16(buses.upperBound))
    }

    /// I/O ports that a bridge produces.
    package static func portWindow(_ ports: ClosedRange<UInt16>) -> AMLResource {
        word(.io, ports)
    }

    /// Memory that a bridge produces: a 32-bit descriptor where it ends below 4 GiB, else 64-bit.
    package static func memoryWindow(_ range: GuestRange) -> AMLResource {
        guard let last = UInt32(exactly: range.last.rawValue) else {
            return addressSpace(
                tag: 0x8a, .memory, range.start.rawValue...range.last.rawValue, range.count)
        }
        let first = UInt32(truncatingIfNeeded: range.start.rawValue)
        return addressSpace(tag: 0x87, .memory, first...last, UInt32(range.count))
    }

    private static func word(_ space: Space, _ values: ClosedRange<UInt16>) -> AMLResource {
        // The whole 16-bit range has no 16-bit length; no bridge of ours asks for it.
        precondition(values.count <= 0xffff, "a 16-bit range's length has 16 bits")
        return addressSpace(tag: 0x88, space, values, UInt16(values.count))
    }

    private static func addressSpace<Value: FixedWidthInteger & UnsignedInteger>(
        tag: UInt8, _ space: Space, _ values: ClosedRange<Value>, _ length: Value
    ) -> AMLResource {
        let fixedMinimumAndMaximum: UInt8 = 0x0c
        var bytes = ByteBuilder([tag])
        bytes.append(UInt16(3 + 5 * Value.bitWidth / 8))
        bytes.append(bytes: [space.rawValue, fixedMinimumAndMaximum, space.flags])
        bytes.append(Value(0))  // granularity
        bytes.append(values.lowerBound)
        bytes.append(values.upperBound)
        bytes.append(Value(0))  // translation
        bytes.append(length)
        return AMLResource(bytes)
    }

    /// I/O ports with a fixed base that a device takes; all 16 address bits are decoded.
    package static func ports(_ base: UInt16, count: UInt8) -> AMLResource {
        var bytes = ByteBuilder([0x47, 1])
        bytes.append(base)
        bytes.append(base)
        bytes.append(bytes: [1, count])
        return AMLResource(bytes)
    }

    /// Writable memory below 4 GiB that a device takes.
    package static func fixedMemory(_ range: GuestRange) -> AMLResource {
        guard let start = UInt32(exactly: range.start.rawValue),
            let count = UInt32(exactly: range.count)
        else { preconditionFailure("a fixed memory descriptor lies below 4 GiB") }
        var bytes = ByteBuilder([0x86, 9, 0, 1])
        bytes.append(start)
        bytes.append(count)
        return AMLResource(bytes)
    }

    /// An interrupt, active high and not shared, that a device takes.
    package static func interrupt(_ gsi: UInt32, isLevel: Bool) -> AMLResource {
        let consumer: UInt8 = 1
        let edge: UInt8 = isLevel ? 0 : 2
        var bytes = ByteBuilder([0x89, 6, 0, consumer | edge, 1])
        bytes.append(gsi)
        return AMLResource(bytes)
    }
}
