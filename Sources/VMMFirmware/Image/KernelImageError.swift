/// Why a file cannot be booted as a kernel. The description is a sentence for the user; the
/// caller puts the file's path before it.
package enum KernelImageError: Error, Hashable, Sendable {
    /// The file starts neither like an ELF file nor like a bzImage.
    case unrecognised
    /// The file ends (`fileBytes`) before `part` does (`end`, a file offset).
    case truncated(part: String, end: UInt64, fileBytes: UInt64)
    /// The OS could not deliver `part`.
    case unreadable(part: String, reason: String)
    /// A header field has a value that is not allowed.
    case unsupported(field: String, value: UInt64, allowed: String)
    /// The ELF file does not say where its 32-bit PVH entry is.
    case missingPVHNote
}

extension KernelImageError: CustomStringConvertible {
    /// The sentence for the user.
    package var description: String {
        switch self {
        case .unrecognised:
            "not a Linux kernel: neither an ELF file nor a bzImage"
        case .truncated(let part, let end, let fileBytes):
            "truncated: the \(part) ends at byte \(end), the file has \(fileBytes) bytes"
        case .unreadable(let part, let reason):
            "cannot read the \(part): \(reason)"
        case .unsupported(let field, let value, let allowed):
            "\(field) is 0x\(String(value, radix: 16)), allowed is \(allowed)"
        case .missingPVHNote:
            "ELF file has no PVH note (Xen note type 18); "
                + "build the kernel with CONFIG_PVH or use the bzImage"
        }
    }
}
