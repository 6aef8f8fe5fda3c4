import CVMMLinux
import Glibc

/// Host bytes at a place in a file: what disk images are read and written with. Blocking calls.
extension FileDescriptor {
    /// Fills `bytes` from `offset`, as far as the file reaches; returns how many bytes came.
    package func read(
        into bytes: inout MutableSpan<UInt8>, at offset: UInt64
    ) throws(HostError) -> Int {
        var done = 0
        let total = bytes.count
        while done < total {
            // SAFETY: the span is `total` bytes, of which `done` are already filled.
            let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
                retryingInterrupts {
                    unsafe pread(
                        rawValue, buffer.baseAddress?.advanced(by: done), total - done,
                        Self.position(offset, plus: done))
                }
            }
            guard moved >= 0 else { throw .last("read") }
            if moved == 0 { break }
            done += moved
        }
        return done
    }

    /// Writes all of `bytes` at `offset`.
    package func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(HostError) {
        var done = 0
        while done < bytes.count {
            // SAFETY: the range from `done` to the end lies inside the span.
            let moved = unsafe bytes.withUnsafeBytes { buffer in
                retryingInterrupts {
                    unsafe pwrite(
                        rawValue, buffer.baseAddress?.advanced(by: done), buffer.count - done,
                        Self.position(offset, plus: done))
                }
            }
            guard moved > 0 else { throw .last("write") }
            done += moved
        }
    }

    /// Sets a regular file's size in bytes; what it gains reads as zeros.
    package func resize(to byteCount: UInt64) throws(HostError) {
        let result = retryingInterrupts { ftruncate(rawValue, off_t(clamping: byteCount)) }
        guard result == 0 else { throw .last("resize") }
    }

    /// Gives the first `byteCount` bytes of a file their room on the disk; their content stays.
    package func allocate(_ byteCount: UInt64) throws(HostError) {
        let result = retryingInterrupts {
            vmm_fallocate(rawValue, 0, 0, Int64(clamping: byteCount))
        }
        guard result == 0 else { throw .last("reserve room for") }
    }

    /// The first stretch of bytes at or after `offset` that takes room on the disk (SEEK_DATA,
    /// SEEK_HOLE); nil when only holes follow. A file that knows no holes is all data.
    package func allocatedRange(from offset: UInt64) throws(HostError) -> Range<UInt64>? {
        let start = lseek(rawValue, off_t(clamping: offset), SEEK_DATA)
        if start < 0 {
            if errno == ENXIO { return nil }
            throw .last("look for data")
        }
        let end = lseek(rawValue, start, SEEK_HOLE)
        guard end >= start else { throw .last("look for a hole") }
        return UInt64(start)..<UInt64(end)
    }

    private static func position(_ offset: UInt64, plus done: Int) -> off_t {
        off_t(clamping: offset.addingReportingOverflow(UInt64(done)).partialValue)
    }
}
