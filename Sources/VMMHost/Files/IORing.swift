import CVMMLinux
import Glibc

/// What to do with a file; offsets and counts in bytes.
package enum DiskOperation {
    case read(GuestVector, offset: UInt64)
    case write(GuestVector, offset: UInt64)
    case flush
    case range(FileDescriptor.RangeOperation, offset: UInt64, count: UInt64)
    /// At most `IORing.zeroByteCount` zero bytes, for files that cannot zero a range.
    case zeros(offset: UInt64, count: UInt64)
}

/// An io_uring of one thread: requests are queued without a system call and handed over in one.
@safe package final class IORing {
    private let ring: UnsafeMutablePointer<io_uring>
    /// Readable whenever completions wait.
    package let descriptor: FileDescriptor

    /// A finished request: the token it was queued with, and the call's result or -errno.
    package struct Completion: Sendable {
        package let token: UInt64
        package let result: Int32

        package init(token: UInt64, result: Int32) {
            self.token = token
            self.result = result
        }
    }

    /// Room for `depth` requests between two `submit`.
    package init(depth: UInt32) throws(HostError) {
        let memory = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
        unsafe memory.initialize(to: io_uring())
        let code = unsafe io_uring_queue_init(depth, memory, 0)
        guard code == 0 else {
            unsafe memory.deallocate()
            throw HostError("create an io_uring", code: -code)
        }
        unsafe ring = memory
        unsafe descriptor = FileDescriptor(borrowing: memory.pointee.ring_fd)
    }

    deinit {
        // SAFETY: the ring was initialised; the owner has drained it, so that no request still
        // writes to guest memory.
        unsafe io_uring_queue_exit(ring)
        unsafe ring.deallocate()
    }

    /// The most that one `zeros` writes: its source is mapped, never written, and so takes no
    /// memory but page tables.
    package static let zeroByteCount: UInt64 = 1 << 20
    private var zeroMapping: Mapping?

    private func zeroSource() -> UnsafeMutableRawPointer? {
        if zeroMapping == nil { zeroMapping = try? Mapping(anonymous: Int(Self.zeroByteCount)) }
        return unsafe zeroMapping?.base
    }

    /// Queues one request; false when the queue is full: submit first. The vector stays untouched
    /// by others until the completion comes.
    package func enqueue(_ operation: DiskOperation, on file: FileDescriptor, token: UInt64) -> Bool
    {
        guard let entry = unsafe io_uring_get_sqe(ring) else { return false }
        let fd = file.rawValue
        // SAFETY: each vector's slices are checked guest memory, which the caller keeps mapped
        // until the completion.
        switch operation {
        case .read(let vector, let offset):
            unsafe io_uring_prep_readv(
                entry, fd, vector.base, UInt32(vector.count), Self.position(offset))
        case .write(let vector, let offset):
            unsafe io_uring_prep_writev(
                entry, fd, vector.base, UInt32(vector.count), Self.position(offset))
        case .flush:
            unsafe io_uring_prep_fsync(entry, fd, UInt32(IORING_FSYNC_DATASYNC))
        case .range(let operation, let offset, let count):
            unsafe io_uring_prep_fallocate(
                entry, fd, operation.fallocateMode, off_t(clamping: offset), off_t(clamping: count))
        case .zeros(let offset, let count):
            // Without a source the kernel answers EFAULT, and the request fails as it should.
            let length = UInt32(min(count, Self.zeroByteCount))
            unsafe io_uring_prep_write(entry, fd, zeroSource(), length, offset)
        }
        unsafe entry.pointee.user_data = token
        return true
    }

    /// All ones would mean "where the file stands"; no file is larger than this anyway.
    private static func position(_ offset: UInt64) -> UInt64 { min(offset, UInt64(Int64.max)) }

    /// Hands all queued requests to the kernel in one call.
    package func submit() {
        // A busy kernel (EAGAIN, EBUSY) keeps them queued; the next submit takes them along.
        unsafe _ = io_uring_submit(ring)
    }

    /// The next finished request, or nil.
    package func nextCompletion() -> Completion? {
        var entry: UnsafeMutablePointer<io_uring_cqe>?
        guard unsafe io_uring_peek_cqe(ring, &entry) == 0, let found = unsafe entry else {
            return nil
        }
        let completion = unsafe Completion(
            token: found.pointee.user_data, result: found.pointee.res)
        unsafe io_uring_cqe_seen(ring, found)
        return completion
    }

    /// Hands over what is queued and waits until a completion is there.
    package func wait() {
        unsafe _ = io_uring_submit_and_wait(ring, 1)
    }
}
