import Glibc
import VMMBase

// Memory on its way to a file, straight from where it is.
extension GuestMemory {
    private static let page = 4096

    /// Writes a range of RAM to `file`, from `offset` on; blocks. Pages of zeros are left out, so
    /// that they are holes of a new file, and pages that nobody has touched are not touched here
    /// either, for that would give them memory. Looks at `goesOn` every 2 MiB.
    package func save(
        _ range: GuestRange, to file: FileDescriptor, at offset: UInt64, while goesOn: () -> Bool
    ) throws(HostError) {
        guard let base = unsafe pointer(at: range.start, count: range.count) else {
            throw HostError("save what is no guest memory", code: EFAULT)
        }
        let pages = PageMap()
        var done = 0
        let count = Int(clamping: range.count)
        while done < count {
            guard goesOn() else { throw HostError("finish it", code: ECANCELED) }
            let part = min(Self.hugePageSize, count - done)
            // SAFETY: the part lies in the range, which pointer(at:count:) checked.
            let present = unsafe pages.present(base + done, byteCount: part)
            try unsafe Self.save(
                base + done, count: part, present, to: file, at: offset + UInt64(done))
            done += part
        }
    }

    /// Writes each run of pages that hold something. `present` tells of each page whether it is
    /// there; nil when nobody knows.
    private static func save(
        _ base: UnsafeMutableRawPointer, count: Int, _ present: [Bool]?, to file: FileDescriptor,
        at offset: UInt64
    ) throws(HostError) {
        var start = 0
        var end = 0
        func write() throws(HostError) {
            while start < end {
                // SAFETY: start and end lie in the part that the caller checked.
                let moved = retryingInterrupts {
                    unsafe pwrite(
                        file.rawValue, base + start, end - start,
                        off_t(clamping: offset + UInt64(start)))
                }
                guard moved >= 0 else { throw .last("write") }
                guard moved > 0 else { throw HostError("write", code: ENOSPC) }
                start += moved
            }
        }
        while end < count {
            let size = min(page, count - end)
            let isThere = present?[end / page] ?? true
            // SAFETY: as above.
            if isThere, unsafe !isZero(base + end, size) {
                end += size
            } else {
                try write()
                end += size
                start = end
            }
        }
        try write()
    }

    /// It starts with zero and equals itself one byte on. The guest may write meanwhile: then
    /// either answer is right.
    private static func isZero(_ base: UnsafeMutableRawPointer, _ count: Int) -> Bool {
        // SAFETY: both stretches lie in the `count` bytes, of which there is one at least.
        unsafe base.load(as: UInt8.self) == 0 && memcmp(base, base + 1, count - 1) == 0
    }
}

/// Which pages of this process have memory, or are swapped out (proc_pid_pagemap(5)).
private struct PageMap {
    private static let page = 4096
    /// Bit 63: in memory; bit 62: swapped out.
    private static let isPresent: UInt64 = 3 << 62

    /// nil where this process may not look.
    private let file = try? FileDescriptor.open("/proc/self/pagemap", .readOnly)

    /// One answer for each page; nil when the kernel does not tell.
    func present(_ base: UnsafeMutableRawPointer, byteCount: Int) -> [Bool]? {
        let count = (byteCount + Self.page - 1) / Self.page
        let place = UInt64(UInt(bitPattern: base)) / UInt64(Self.page) * 8
        guard let bytes = try? file?.read(at: place, count: count * 8) else { return nil }
        return (0..<count).map { index in
            // The topmost byte of a little-endian entry.
            UInt64(bytes[index * 8 + 7]) << 56 & Self.isPresent != 0
        }
    }
}
