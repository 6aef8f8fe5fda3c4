/// A UUID in the byte order that ACPI's ToUUID and SMBIOS share: the first three groups are
/// little-endian (ACPI 6.5, 19.6.142; SMBIOS 3.2, 7.2.1).
package struct GUID: Hashable, Sendable {
    /// The 16 bytes as they stand in a table.
    package let bytes: [UInt8]

    private static let groupDigits = [8, 4, 4, 4, 12]

    /// Nil unless `text` is 32 hexadecimal digits in groups of 8-4-4-4-12.
    package init?(_ text: String) {
        let groups = text.split(separator: "-", omittingEmptySubsequences: false)
        guard groups.map(\.utf8.count) == Self.groupDigits else { return nil }
        var bytes: [UInt8] = []
        for (index, group) in groups.enumerated() {
            guard group.utf8.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }),
                let value = UInt64(group, radix: 16)
            else { return nil }
            let count = group.utf8.count / 2
            let littleEndian = (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
            bytes += index < 3 ? littleEndian : littleEndian.reversed()
        }
        self.bytes = bytes
    }
}
