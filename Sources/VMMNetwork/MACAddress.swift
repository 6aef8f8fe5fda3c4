import VMMBase

/// An Ethernet address.
package struct MACAddress: Equatable, Sendable, CustomStringConvertible {
    /// Six bytes, first on the wire first.
    package let bytes: [UInt8]

    /// Nil unless `text` is six pairs of hexadecimal digits with colons between them.
    package init?(_ text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        // `UInt8` alone would take a sign for the first digit.
        let bytes = parts.compactMap { part in
            part.utf8.count == 2 && part.allSatisfy(\.isHexDigit) ? UInt8(part, radix: 16) : nil
        }
        guard parts.count == 6, bytes.count == 6 else { return nil }
        self.bytes = bytes
    }

    /// A random address that is marked as locally administered.
    package static func random() -> MACAddress {
        var bytes = (0..<6).map { _ in UInt8.random(in: .min ... .max) }
        // Bit 0 of the first byte would make it a group address; bit 1 says "local".
        bytes[0] = bytes[0] & ~1 | 2
        return MACAddress(bytes: bytes)
    }

    private init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// A group address cannot be an interface's own.
    package var isMulticast: Bool { bytes[0] & 1 == 1 }

    package var description: String {
        bytes.map { byte in
            let text = String(byte, radix: 16)
            return text.count == 1 ? "0" + text : text
        }.joined(separator: ":")
    }
}
