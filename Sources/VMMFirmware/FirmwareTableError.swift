/// A firmware table that does not hold what it should, which only very many vCPUs or very long
/// user-given strings can cause.
package enum FirmwareTableError: Error, Hashable, Sendable {
    /// `table` has outgrown the guest memory set aside for it.
    case tooLarge(table: String, bytes: Int, limit: Int)
    /// SMBIOS numbers OEM strings in one byte.
    case tooManyOEMStrings(count: Int, limit: Int)
}

extension FirmwareTableError: CustomStringConvertible {
    /// The sentence for the user.
    package var description: String {
        switch self {
        case .tooLarge(let table, let bytes, let limit):
            "the \(table) take \(bytes) bytes, the guest has room for \(limit)"
        case .tooManyOEMStrings(let count, let limit):
            "\(count) OEM strings are too many; the most is \(limit)"
        }
    }
}
