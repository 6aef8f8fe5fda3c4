extension JSONValue {
    /// As text, in UTF-8: the shortest, or with a line for each value.
    package func text(isIndented: Bool = false) -> [UInt8] {
        var bytes: [UInt8] = []
        write(to: &bytes, indentation: isIndented ? 0 : nil)
        return bytes
    }

    private func write(to bytes: inout [UInt8], indentation: Int?) {
        switch self {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .number(let text): bytes += text.utf8
        case .string(let text): Self.write(text, to: &bytes)
        case .array(let values):
            Self.list(values, "[", "]", to: &bytes, indentation) { value, bytes, inner in
                value.write(to: &bytes, indentation: inner)
            }
        case .object(let members):
            Self.list(members, "{", "}", to: &bytes, indentation) { member, bytes, inner in
                Self.write(member.name, to: &bytes)
                bytes += (inner == nil ? ":" : ": ").utf8
                member.value.write(to: &bytes, indentation: inner)
            }
        }
    }

    private static func list<Element>(
        _ elements: [Element], _ start: String, _ end: String, to bytes: inout [UInt8],
        _ indentation: Int?, _ write: (Element, inout [UInt8], Int?) -> Void
    ) {
        let inner = indentation.map { $0 + 2 }
        bytes += start.utf8
        for (index, element) in elements.enumerated() {
            if index > 0 { bytes.append(UInt8(ascii: ",")) }
            breakLine(&bytes, inner)
            write(element, &bytes, inner)
        }
        if !elements.isEmpty { breakLine(&bytes, indentation) }
        bytes += end.utf8
    }

    private static func breakLine(_ bytes: inout [UInt8], _ indentation: Int?) {
        guard let indentation else { return }
        bytes.append(UInt8(ascii: "\n"))
        bytes += repeatElement(UInt8(ascii: " "), count: indentation)
    }

    private static func write(_ text: String, to bytes: inout [UInt8]) {
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes += [UInt8(ascii: "\\"), byte]
            case 0x0a: bytes += "\\n".utf8
            case 0x0d: bytes += "\\r".utf8
            case 0x09: bytes += "\\t".utf8
            case 0..<0x20: bytes += "\\u00\(byte < 16 ? "0" : "")\(String(byte, radix: 16))".utf8
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
}
