import VMMBase

/// An encoded run of ACPI Machine Language terms (ACPI 6.5, chapter 20). Terms are made by the
/// factories in this type's extensions and nest by value, so a device is an expression. Names come
/// from this module's source only: a malformed one is our bug.
package struct AML: Hashable, Sendable {
    /// The encoding.
    package let bytes: [UInt8]

    /// Wraps bytes that are AML already.
    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// An opcode, with an extension prefix if any, followed by its operands.
    init(_ opcode: [UInt8], _ operands: AML...) {
        bytes = opcode + operands.flatMap(\.bytes)
    }

    /// An opcode followed by the length of itself and its content (ACPI 6.5, 20.2.4).
    init(_ opcode: [UInt8], package content: [UInt8]) {
        bytes = opcode + Self.packageLength(of: content.count, countsItself: true) + content
    }

    /// Terms one after the other.
    static func sequence(_ terms: [AML]) -> [UInt8] {
        terms.flatMap(\.bytes)
    }

    /// One byte holds up to 63; else the first byte's top bits say how many bytes follow and its
    /// low four bits are the value's lowest.
    static func packageLength(of content: Int, countsItself: Bool) -> [UInt8] {
        let limits = [0x3f, 0xfff, 0xf_ffff, 0xfff_ffff]
        for (extra, limit) in limits.enumerated() {
            let value = content + (countsItself ? extra + 1 : 0)
            guard value <= limit else { continue }
            guard extra > 0 else { return [UInt8(value)] }
            let lead = UInt8(extra << 6 | value & 0xf)
            let rest = (0..<extra).map { UInt8(truncatingIfNeeded: value >> (4 + 8 * $0)) }
            return [lead] + rest
        }
        preconditionFailure("an AML package is shorter than 256 MiB")
    }
}
