import CVMMLinux
import Glibc

/// Guest memory in and out of a descriptor, without a copy in between.
extension FileDescriptor {
    /// One `preadv`; offset in bytes.
    package func read(into vector: GuestVector, at offset: UInt64) -> Transfer {
        // SAFETY: the vector's slices were checked against guest memory, which it keeps mapped.
        let moved = retryingInterrupts {
            unsafe preadv(rawValue, vector.base, Int32(vector.count), off_t(clamping: offset))
        }
        return Self.transfer(moved, errno)
    }

    /// One `pwritev`; offset in bytes.
    package func write(_ vector: GuestVector, at offset: UInt64) -> Transfer {
        // SAFETY: as above.
        let moved = retryingInterrupts {
            unsafe pwritev(rawValue, vector.base, Int32(vector.count), off_t(clamping: offset))
        }
        return Self.transfer(moved, errno)
    }

    /// One `readv` from a stream or a tap.
    package func read(into vector: GuestVector) -> Transfer {
        // SAFETY: as above.
        let moved = retryingInterrupts {
            unsafe readv(rawValue, vector.base, Int32(vector.count))
        }
        return Self.transfer(moved, errno)
    }

    /// One `writev` to a stream or a tap.
    package func write(_ vector: GuestVector) -> Transfer {
        // SAFETY: as above.
        let moved = retryingInterrupts {
            unsafe writev(rawValue, vector.base, Int32(vector.count))
        }
        return Self.transfer(moved, errno)
    }

    /// Flushes data (and, with `metadata`, the file's attributes) to stable storage.
    package func synchronize(metadata: Bool = false) throws(HostError) {
        let result = retryingInterrupts { metadata ? fsync(rawValue) : fdatasync(rawValue) }
        guard result == 0 else { throw .last("flush") }
    }

    /// What `fallocate` and the block ioctls do to a range.
    package enum RangeOperation: Sendable {
        case discard
        case writeZeros(mayUnmap: Bool)
    }

    /// Discards or zeroes a byte range of a file or block device.
    package func apply(
        _ operation: RangeOperation, offset: UInt64, count: UInt64
    ) throws(HostError) {
        let result = retryingInterrupts {
            vmm_fallocate(
                rawValue, operation.fallocateMode, Int64(clamping: offset), Int64(clamping: count))
        }
        guard result == 0 else { throw .last("discard or zero a range") }
    }

    /// Writes `count` zero bytes at `offset`, for files that cannot do it by a range operation.
    package func writeZeros(offset: UInt64, count: UInt64) throws(HostError) {
        let zeros = [UInt8](repeating: 0, count: Int(min(count, 65536)))
        var done: UInt64 = 0
        while done < count {
            let step = Int(min(count - done, UInt64(zeros.count)))
            // SAFETY: step is at most the array's size.
            let moved = unsafe zeros.withUnsafeBytes { buffer in
                retryingInterrupts {
                    unsafe pwrite(
                        rawValue, buffer.baseAddress, step, off_t(clamping: offset + done))
                }
            }
            guard moved > 0 else { throw .last("write zeros") }
            done += UInt64(moved)
        }
    }
}

extension FileDescriptor.RangeOperation {
    /// The mode of fallocate(2); on block devices the kernel turns it into discard or zeroing.
    var fallocateMode: Int32 {
        switch self {
        case .discard, .writeZeros(mayUnmap: true): FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        case .writeZeros(mayUnmap: false): FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
        }
    }
}
