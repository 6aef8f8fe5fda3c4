import VMMHost

/// What the bytes of a disk image lie on: a host file or block device, or something that fails on
/// purpose. Calls block. One thread at a time, and never the thread of an I/O loop.
package protocol ImageFile: AnyObject {
    /// As the user or another image named it; for messages.
    var path: String { get }
    var isReadOnly: Bool { get }
    /// The file that an engine may move guest data to and from directly; nil when every byte has
    /// to go through the calls below.
    var descriptor: FileDescriptor? { get }
    /// What offsets, counts and memory must be multiples of, in bytes: 1 unless opened for direct
    /// I/O. `HostFile` aligns its own calls; this is for those who bypass it.
    var alignment: Int { get }

    /// Size in bytes now.
    func byteCount() throws(HostError) -> UInt64
    /// Fills `bytes` as far as the file reaches; returns how many bytes came.
    func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(HostError) -> Int
    /// Writes all of `bytes`; the file grows where it must.
    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(HostError)
    /// The range reads as zeros afterwards (`readPadded`: the file need not grow for it).
    /// `mayUnmap`: its room may be given back.
    func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(HostError)
    /// Gives the range's room back where the file can; what it reads as afterwards is open.
    func discard(at offset: UInt64, count: UInt64) throws(HostError)
    func resize(to byteCount: UInt64) throws(HostError)
    /// All that was written is on stable storage when this returns.
    func synchronize() throws(HostError)
    /// A `synchronize` has failed: what was written before may be lost, and the kernel tells of
    /// that once.
    var hasLostWrites: Bool { get }
    /// The first stretch at or after `offset` that may hold other bytes than zeros; nil when only
    /// holes follow.
    func allocatedRange(from offset: UInt64) throws(HostError) -> Range<UInt64>?
}

extension ImageFile {
    package var hasLostWrites: Bool { false }

    /// Fills all of `bytes`; what lies past the file's end reads as zeros.
    package func readPadded(
        into bytes: inout MutableSpan<UInt8>, at offset: UInt64
    ) throws(HostError) {
        let count = try read(into: &bytes, at: offset)
        var rest = bytes._mutatingExtracting(count...)
        rest.update(repeating: 0)
    }

    /// `count` bytes at `offset`; nil when the file ends before that. `count` is bounded by the
    /// caller, never by a number out of the file alone.
    package func bytes(at offset: UInt64, count: Int) throws(HostError) -> [UInt8]? {
        var result = [UInt8](repeating: 0, count: count)
        var bytes = result.mutableSpan
        let found = try read(into: &bytes, at: offset)
        return found == count ? result : nil
    }

    /// Writes all of `bytes` at `offset`.
    package func write(_ bytes: [UInt8], at offset: UInt64) throws(HostError) {
        try write(bytes.span, at: offset)
    }
}
