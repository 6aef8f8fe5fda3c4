/// Named objects (ACPI 6.5, 20.2.5).
extension AML {
    /// Address spaces of an operation region.
    package enum RegionSpace: UInt8, Sendable {
        /// Guest-physical memory.
        case systemMemory = 0
        /// I/O ports.
        case systemIO = 1
    }

    /// How wide the accesses to a field are.
    package enum FieldAccess: UInt8, Sendable {
        /// Bytes.
        case byte = 1
        /// 32-bit words.
        case doubleWord = 3
    }

    /// Opens the scope of an object that exists elsewhere.
    package static func scope(_ path: String, _ terms: [AML]) -> AML {
        AML([0x10], package: AML.path(path).bytes + sequence(terms))
    }

    /// A device.
    package static func device(_ path: String, _ terms: [AML]) -> AML {
        AML([0x5b, 0x82], package: AML.path(path).bytes + sequence(terms))
    }

    /// Gives a name to a value.
    package static func name(_ path: String, _ value: AML) -> AML {
        AML([0x08], .path(path), value)
    }

    /// A method; a serialized one has one caller at a time, which it needs if it makes objects.
    package static func method(
        _ path: String, arguments: Int, serialized: Bool, _ terms: [AML]
    ) -> AML {
        precondition((0...7).contains(arguments), "an AML method has at most 7 arguments")
        let flags = UInt8(arguments) | (serialized ? 8 : 0)
        return AML([0x14], package: AML.path(path).bytes + [flags] + sequence(terms))
    }

    /// A lock that methods hold while others must not come between; not nested in others.
    package static func mutex(_ path: String) -> AML {
        AML([0x5b, 0x01], .path(path), AML([0x00]))
    }

    /// A run of `length` bytes at `offset` of an address space.
    package static func operationRegion(
        _ path: String, _ space: RegionSpace, offset: UInt64, length: UInt64
    ) -> AML {
        AML([0x5b, 0x80], .path(path), AML([space.rawValue]), .integer(offset), .integer(length))
    }

    /// Names for the bits of `region`, from bit 0 on, without a lock; a write to a part of an
    /// access-wide unit writes zeros to the rest of it.
    package static func field(
        _ region: String, _ access: FieldAccess, _ units: [(name: String, bits: Int)]
    ) -> AML {
        let writeAsZeros: UInt8 = 2 << 5
        let list = units.flatMap { unit in
            AML.path(unit.name).bytes + packageLength(of: unit.bits, countsItself: false)
        }
        return AML(
            [0x5b, 0x81],
            package: AML.path(region).bytes + [access.rawValue | writeAsZeros] + list)
    }
}
