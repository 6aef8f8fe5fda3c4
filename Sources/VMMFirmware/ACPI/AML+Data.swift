import VMMBase

/// Names and constants (ACPI 6.5, 20.2.2 and 20.2.3).
extension AML {
    /// A reference to, or the name of, an object: segments of one to four characters joined by
    /// dots, after `\` for the root or `^` for the parent.
    package static func path(_ text: String) -> AML {
        var rest = Substring(text)
        var prefix: [UInt8] = []
        while let first = rest.utf8.first, first == 0x5c || first == 0x5e {
            prefix.append(first)
            rest = rest.dropFirst()
        }
        let segments = rest.split(separator: ".").map { segment in
            precondition(
                (1...4).contains(segment.utf8.count)
                    && segment.utf8.allSatisfy(isNameCharacter), "an ACPI name segment is valid")
            return Array(segment.utf8) + Array(repeating: 0x5f, count: 4 - segment.utf8.count)
        }
        let lead: [UInt8] =
            switch segments.count {
            case 0: [0x00]
            case 1: []
            case 2: [0x2e]
            default: [0x2f, UInt8(segments.count)]
            }
        return AML(prefix + lead + segments.flatMap(\.self))
    }

    private static func isNameCharacter(_ character: UInt8) -> Bool {
        switch character {
        case 0x30...0x39, 0x41...0x5a, 0x5f: true
        default: false
        }
    }

    /// An integer in its shortest encoding.
    package static func integer(_ value: UInt64) -> AML {
        var bytes = ByteBuilder()
        switch value {
        case 0, 1: bytes.append(UInt8(value))
        case .max: bytes.append(UInt8(0xff))
        case ...0xff: bytes = ByteBuilder([0x0a, UInt8(value)])
        case ...0xffff:
            bytes.append(UInt8(0x0b))
            bytes.append(UInt16(value))
        case ...0xffff_ffff:
            bytes.append(UInt8(0x0c))
            bytes.append(UInt32(value))
        default:
            bytes.append(UInt8(0x0e))
            bytes.append(value)
        }
        return AML(bytes.bytes)
    }

    /// An ASCII string.
    package static func string(_ text: String) -> AML {
        precondition(text.utf8.allSatisfy { (1...0x7f).contains($0) }, "an AML string is ASCII")
        return AML([0x0d] + text.utf8 + [0])
    }

    /// The integer for a plug-and-play id of three capital letters and four hexadecimal digits,
    /// such as `PNP0501` (ACPI 6.5, 19.6.37).
    package static func eisaID(_ text: String) -> AML {
        let letters = text.utf8.prefix(3)
        let digits = text.dropFirst(3)
        guard letters.allSatisfy({ (0x41...0x5a).contains($0) }), digits.utf8.count == 4,
            let number = UInt32(digits, radix: 16)
        else { preconditionFailure("an EISA id is three letters and four digits") }
        let vendor = letters.reduce(UInt32(0)) { $0 << 5 | UInt32($1 - 0x40) }
        return integer(UInt64((vendor << 16 | number).byteSwapped))
    }

    /// A buffer that holds exactly `content`.
    package static func buffer(_ content: [UInt8]) -> AML {
        AML([0x11], package: integer(UInt64(content.count)).bytes + content)
    }

    /// A UUID as a 16-byte buffer, as ToUUID makes it.
    package static func uuid(_ text: String) -> AML {
        guard let guid = GUID(text) else { preconditionFailure("an ACPI UUID is well-formed") }
        return buffer(guid.bytes)
    }

    /// A package of at most 255 elements.
    package static func package(_ elements: [AML]) -> AML {
        precondition(elements.count <= 255, "an AML package has at most 255 elements")
        return AML([0x12], package: [UInt8(elements.count)] + sequence(elements))
    }

    /// A resource template: descriptors and the end tag, whose checksum of zero means "none".
    package static func resources(_ descriptors: [AMLResource]) -> AML {
        buffer(descriptors.flatMap(\.bytes) + [0x79, 0x00])
    }
}
