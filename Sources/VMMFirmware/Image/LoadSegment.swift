import VMMBase

/// A run of guest memory whose first bytes come from the kernel file and whose rest is zero.
package struct LoadSegment: Hashable, Sendable {
    /// Where the bytes start in the file.
    package let fileOffset: UInt64
    /// How many bytes come from the file, at most `memoryBytes`.
    package let fileBytes: UInt64
    /// The guest-physical memory that the segment takes, with the part that stays zero.
    package let range: GuestRange

    /// Guest-physical address of the first byte.
    package var address: GuestAddress { range.start }
    /// Length in guest memory, in bytes.
    package var memoryBytes: UInt64 { range.count }

    /// Takes values that the parser has checked: the file part is not longer than the range.
    package init(fileOffset: UInt64, fileBytes: UInt64, range: GuestRange) {
        precondition(fileBytes <= range.count, "a segment's file part fits its memory")
        self.fileOffset = fileOffset
        self.fileBytes = fileBytes
        self.range = range
    }
}
