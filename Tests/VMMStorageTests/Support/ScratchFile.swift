import Glibc
import VMMHost
import VMMStorage

/// An image file in memory, for hostile contents and for power cuts.
final class ScratchFile: ImageFile {
    let path: String
    var isReadOnly = false
    let descriptor: FileDescriptor? = nil
    let alignment = 1
    private(set) var contents: [UInt8]
    /// Changes that still succeed; nil: all do.
    var changesLeft: Int?
    /// What a power cut leaves for sure, and what was changed since.
    private var stable: [UInt8]
    private var unstable: [Change] = []

    /// More than any test writes on purpose: a huge file is a defect of the format's code.
    var byteLimit = 128 << 20

    private enum Change {
        case write(offset: Int, bytes: [UInt8])
        case resize(Int)
    }

    /// Whether `afterCut` is going to be asked; it takes a copy of the contents at each
    /// synchronization.
    private let remembers: Bool

    init(_ contents: [UInt8] = [], path: String = "scratch", remembers: Bool = true) {
        self.contents = contents
        self.path = path
        self.remembers = remembers
        stable = remembers ? contents : []
    }

    /// What is there after a power cut now: of the changes since the last synchronization some,
    /// whichever, and of some only some sectors. A killed process leaves them all: `contents`.
    func afterCut(_ generator: inout SeededGenerator) -> [UInt8] {
        var result = stable
        for change in unstable where Bool.random(using: &generator) {
            guard case .write(let offset, let bytes) = change, Bool.random(using: &generator) else {
                Self.apply(change, to: &result)
                continue
            }
            for start in stride(from: 0, to: bytes.count, by: 512)
            where Bool.random(using: &generator) {
                let sector = Array(bytes[start..<min(start + 512, bytes.count)])
                Self.apply(.write(offset: offset + start, bytes: sector), to: &result)
            }
        }
        return result
    }

    private static func apply(_ change: Change, to contents: inout [UInt8]) {
        switch change {
        case .write(let offset, let bytes):
            if contents.count < offset + bytes.count {
                contents += Array(repeating: 0, count: offset + bytes.count - contents.count)
            }
            contents.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        case .resize(let count):
            contents.removeLast(max(0, contents.count - count))
            contents += Array(repeating: 0, count: count - contents.count)
        }
    }

    private func change(_ change: Change) throws(HostError) {
        if let left = changesLeft {
            guard left > 0 else { throw HostError("write", code: EIO) }
            changesLeft = left - 1
        }
        if remembers { unstable.append(change) }
        Self.apply(change, to: &contents)
    }

    private func end(_ offset: UInt64, _ count: UInt64) throws(HostError) -> Int {
        guard !isReadOnly else { throw HostError("write", code: EBADF) }
        let (end, overflows) = offset.addingReportingOverflow(count)
        guard !overflows, end <= byteLimit else { throw HostError("write", code: EFBIG) }
        return Int(end)
    }

    func byteCount() throws(HostError) -> UInt64 { UInt64(contents.count) }

    func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(HostError) -> Int {
        guard offset < contents.count else { return 0 }
        let count = min(bytes.count, contents.count - Int(offset))
        bytes.withUnsafeMutableBytes { buffer in
            buffer.copyBytes(from: contents[Int(offset)..<Int(offset) + count])
        }
        return count
    }

    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(HostError) {
        _ = try end(offset, UInt64(bytes.count))
        try change(.write(offset: Int(offset), bytes: bytes.withUnsafeBytes(Array.init)))
    }

    func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(HostError) {
        let end = min(try end(offset, count), contents.count)
        guard end > offset else { return }
        try change(
            .write(offset: Int(offset), bytes: Array(repeating: 0, count: end - Int(offset))))
    }

    func discard(at offset: UInt64, count: UInt64) throws(HostError) {
        try writeZeros(at: offset, count: count, mayUnmap: true)
    }

    func resize(to byteCount: UInt64) throws(HostError) {
        try change(.resize(try end(byteCount, 0)))
    }

    func synchronize() throws(HostError) {
        if changesLeft == 0 { throw HostError("synchronize", code: EIO) }
        guard remembers else { return }
        stable = contents
        unstable = []
    }

    func allocatedRange(from offset: UInt64) throws(HostError) -> Range<UInt64>? {
        offset < contents.count ? offset..<UInt64(contents.count) : nil
    }
}
