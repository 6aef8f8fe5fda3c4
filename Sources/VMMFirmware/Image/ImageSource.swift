/// A file with something for the guest in it. The OS layer supplies it; the parsers here read
/// only headers through it, never the whole file.
package protocol ImageSource {
    /// The file's length in bytes.
    var byteCount: UInt64 { get }

    /// Reads exactly `count` bytes from `offset` on, or throws.
    func read(at offset: UInt64, count: Int) throws -> [UInt8]
}

extension ImageSource {
    /// Reads the piece of the file that a person would call `part`, after checking that the file
    /// has it. `limit` bounds what a hostile count can make the monitor allocate, in bytes.
    func fields(
        of part: String, at offset: UInt64, count: UInt64, limit: Int
    ) throws(KernelImageError) -> ImageFields {
        guard count <= UInt64(limit) else {
            throw .unsupported(
                field: "size of the \(part)", value: count, allowed: "at most \(limit)")
        }
        try requirePart(part, at: offset, count: count)
        let bytes: [UInt8]
        do {
            bytes = try read(at: offset, count: Int(count))
        } catch {
            throw .unreadable(part: part, reason: "\(error)")
        }
        guard bytes.count == Int(count) else {
            throw .unreadable(part: part, reason: "\(bytes.count) of \(count) bytes were read")
        }
        return ImageFields(bytes)
    }

    /// Throws unless the file has `count` bytes at `offset`.
    func requirePart(
        _ part: String, at offset: UInt64, count: UInt64
    ) throws(KernelImageError) {
        let (end, overflow) = offset.addingReportingOverflow(count)
        guard !overflow, end <= byteCount else {
            throw .truncated(part: part, end: overflow ? .max : end, fileBytes: byteCount)
        }
    }
}
