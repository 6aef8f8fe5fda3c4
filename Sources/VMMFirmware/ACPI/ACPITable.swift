import VMMBase

/// A system description table: the 36-byte header with Swiftlet's ids, and a body
/// (ACPI 6.5, 5.2.6).
struct ACPITable {
    /// The table with its length and checksum.
    let bytes: [UInt8]

    static let headerBytes = 36

    init(signature: String, revision: UInt8, body: [UInt8]) {
        var table = ByteBuilder()
        table.append(ascii: signature, count: 4)
        table.append(UInt32(Self.headerBytes + body.count))
        table.append(bytes: [revision, 0])
        table.append(ascii: "SWIFT", count: 6)
        table.append(ascii: "SWIFTLET", count: 8)
        table.append(UInt32(1))  // OEM revision
        table.append(ascii: "SWFT", count: 4)
        table.append(UInt32(1))  // creator revision
        table.append(bytes: body)
        table.patch(checksum(of: table.bytes), at: 9)
        bytes = table.bytes
    }
}

/// The byte that makes the sum of `bytes` zero, which have a zero in its place.
func checksum(of bytes: [UInt8]) -> UInt8 {
    0 &- bytes.reduce(0, &+)
}
