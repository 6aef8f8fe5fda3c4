import Glibc
import VMMHost
import VMMStorage

/// A file that lies in the test's memory, hostile contents and all.
final class MemoryFile: ImageFile {
    let path: String
    var isReadOnly: Bool
    let descriptor: FileDescriptor? = nil
    let alignment = 1
    private(set) var bytes: [UInt8]
    /// More than any test writes on purpose: a huge file is a defect of the format's code.
    var byteLimit: UInt64 = 64 << 20

    init(
        _ bytes: [UInt8] = [], path: String = "/nowhere/memory.img", isReadOnly: Bool = false
    ) {
        self.bytes = bytes
        self.path = path
        self.isReadOnly = isReadOnly
    }

    func byteCount() -> UInt64 { UInt64(bytes.count) }

    func read(into span: inout MutableSpan<UInt8>, at offset: UInt64) -> Int {
        guard offset < UInt64(bytes.count) else { return 0 }
        let count = min(span.count, bytes.count - Int(offset))
        span.withUnsafeMutableBytes { target in
            bytes.withUnsafeBytes { source in
                target.copyMemory(from: .init(rebasing: source[Int(offset)..<Int(offset) + count]))
            }
        }
        return count
    }

    private func requireWritable() throws(HostError) {
        guard !isReadOnly else { throw HostError("write", path, code: EBADF) }
    }

    func write(_ span: Span<UInt8>, at offset: UInt64) throws(HostError) {
        try requireWritable()
        try resize(atLeast: offset, UInt64(span.count))
        guard span.count > 0 else { return }
        span.withUnsafeBytes { source in
            bytes.withUnsafeMutableBytes { target in
                UnsafeMutableRawBufferPointer(rebasing: target[Int(offset)...])
                    .copyMemory(from: source)
            }
        }
    }

    func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(HostError) {
        try requireWritable()
        guard offset < UInt64(bytes.count) else { return }
        let end = min(UInt64(bytes.count), offset.addingReportingOverflow(count).partialValue)
        bytes.fill(Int(offset)..<Int(max(end, offset)), with: 0)
    }

    func discard(at offset: UInt64, count: UInt64) throws(HostError) {
        try writeZeros(at: offset, count: count, mayUnmap: true)
    }

    private func resize(atLeast offset: UInt64, _ count: UInt64) throws(HostError) {
        let end = offset.addingReportingOverflow(count)
        guard !end.overflow else { throw HostError("write", path, code: EFBIG) }
        if end.partialValue > UInt64(bytes.count) { try resize(to: end.partialValue) }
    }

    func resize(to byteCount: UInt64) throws(HostError) {
        try requireWritable()
        guard byteCount <= byteLimit else { throw HostError("resize", path, code: EFBIG) }
        let count = Int(byteCount)
        if count < bytes.count { bytes.removeLast(bytes.count - count) }
        bytes += [UInt8](repeating: 0, count: count - bytes.count)
    }

    func synchronize() {}

    func allocatedRange(from offset: UInt64) -> Range<UInt64>? {
        offset < UInt64(bytes.count) ? offset..<UInt64(bytes.count) : nil
    }
}
