/// A firmware table that has outgrown the memory set aside for it, which only very many vCPUs or
/// very long user-given strings can cause.
package struct FirmwareTableError: Error, Hashable, Sendable {
    /// The table's name, such as `ACPI tables`.
    package let table: String
    /// Its size in bytes.
    package let bytes: Int
    /// The size that there is room for, in bytes.
    package let limit: Int
}

extension FirmwareTableError: CustomStringConvertible {
    /// The sentence for the user.
    package var description: String {
        "the \(table) take \(bytes) bytes, the guest has room for \(limit)"
    }
}
