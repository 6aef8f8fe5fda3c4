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
        _ operation: RangeOperation, offset: UInt64, count: UInt64, isBlockDevice: Bool
    ) throws(HostError) {
        if isBlockDevice {
            var range: (UInt64, UInt64) = (offset, count)
            let request: vmm_ioctl
            if case .discard = operation { request = VMM_BLKDISCARD } else { request = VMM_BLKZEROOUT }
            guard ioctl(request, with: &range) == 0 else { throw .last("discard or zero a range") }
            return
        }
        let mode: Int32
        switch operation {
        case .discard, .writeZeros(mayUnmap: true): mode = FALLOC_FL_PUNCH_HOLE
        case .writeZeros(mayUnmap: false): mode = FALLOC_FL_ZERO_RANGE
        }
        let result = retryingInterrupts {
            vmm_fallocate(
                rawValue, mode | FALLOC_FL_KEEP_SIZE, Int64(clamping: offset),
                Int64(clamping: count))
        }
        guard result == 0 else { throw .last("discard or zero a range") }
    }
}
