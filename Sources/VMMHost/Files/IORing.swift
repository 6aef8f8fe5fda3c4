import CVMMLinux
import Glibc
import VMMBase

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
/// The thread's loop may wait in it (`EventLoop.wait(in:)`): then what is queued goes along when
/// the loop waits again, and one call does both.
@safe package final class IORing {
    private let ring: UnsafeMutablePointer<io_uring>
    /// What raises an event counter.
    private let one: UnsafeMutablePointer<UInt64>
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

    /// The fewest completions that a ring has room for: a loop that waits in it watches all its
    /// doorbells there, however small a queue the guest chose.
    private static let leastCompletions: UInt32 = 128

    /// Room for `depth` requests between two `submit`.
    package init(depth: UInt32) throws(HostError) {
        let memory = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
        unsafe memory.initialize(to: io_uring())
        var parameters = io_uring_params()
        parameters.cq_entries = max(2 * depth, Self.leastCompletions)
        // Completions come with the thread's next call into the kernel, not by interrupting it.
        parameters.flags = IORING_SETUP_CQSIZE | IORING_SETUP_COOP_TASKRUN
        var code = unsafe io_uring_queue_init_params(depth, memory, &parameters)
        if code == -EINVAL {
            // Linux before 5.19.
            parameters.flags = IORING_SETUP_CQSIZE
            code = unsafe io_uring_queue_init_params(depth, memory, &parameters)
        }
        guard code == 0 else {
            unsafe memory.deallocate()
            throw HostError("create an io_uring", code: -code)
        }
        unsafe ring = memory
        unsafe one = .allocate(capacity: 1)
        unsafe one.initialize(to: 1)
        unsafe descriptor = FileDescriptor(borrowing: memory.pointee.ring_fd)
        finished.reserveCapacity(2 * Int(depth))
        events.reserveCapacity(2 * Int(depth))
        raised.reserveCapacity(Int(depth))
    }

    deinit {
        // SAFETY: the ring was initialised; the owner has drained it, so that no request still
        // writes to guest memory.
        unsafe io_uring_queue_exit(ring)
        unsafe ring.deallocate()
        unsafe one.deallocate()
    }

    /// The most that one `zeros` writes: its source is mapped, never written, and so takes no
    /// memory but page tables.
    package static let zeroByteCount: UInt64 = 1 << 20
    private var zeroMapping: Mapping?

    private func zeroSource() -> UnsafeMutableRawPointer? {
        if zeroMapping == nil { zeroMapping = try? Mapping(anonymous: Int(Self.zeroByteCount)) }
        return unsafe zeroMapping?.base
    }

    /// Queues one request; what is queued is handed over when there is no room. The vector stays
    /// untouched by others until the completion comes.
    package func enqueue(_ operation: DiskOperation, on file: FileDescriptor, token: UInt64) {
        let entry = unsafe freeEntry()
        let fd = file.rawValue
        // SAFETY: each vector's slices are checked guest memory, which the caller keeps mapped
        // until the completion.
        switch operation {
        // A list of one slice costs the kernel a copy of the list.
        case .read(let vector, let offset) where vector.count == 1:
            unsafe io_uring_prep_read(
                entry, fd, vector.base.pointee.iov_base, UInt32(vector.byteCount),
                Self.position(offset))
        case .write(let vector, let offset) where vector.count == 1:
            unsafe io_uring_prep_write(
                entry, fd, vector.base.pointee.iov_base, UInt32(vector.byteCount),
                Self.position(offset))
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
    }

    /// All ones would mean "where the file stands"; no file is larger than this anyway.
    private static func position(_ offset: UInt64) -> UInt64 { min(offset, UInt64(Int64.max)) }

    /// Hands all queued requests to the kernel in one call; none, if the thread's loop does it.
    package func submit() {
        if !isSubmittedByLoop { submitNow() }
    }

    /// Hands all queued requests to the kernel at once.
    func submitNow() {
        // A busy kernel (EAGAIN, EBUSY) keeps them queued; the next submit takes them along.
        unsafe _ = io_uring_submit(ring)
        forgetRaised()
    }

    /// The next finished request, or nil.
    package func nextCompletion() -> Completion? {
        if !finished.isEmpty {
            let completion = finished[nextFinished]
            nextFinished += 1
            if nextFinished == finished.count {
                finished.removeAll(keepingCapacity: true)
                nextFinished = 0
            }
            return completion
        }
        while let entry = takeEntry() {
            if entry.token & Self.watchBit == 0 {
                return Completion(token: entry.token, result: entry.result)
            }
            noteEvent(entry)
        }
        return nil
    }

    // MARK: for the loop

    /// Tokens of the loop's own; a request's token has the bit clear.
    static let watchBit: UInt64 = 1 << 63

    /// Something that the loop watches is ready.
    struct Event {
        let token: UInt64
        /// The poll's answer, or -errno.
        let result: Int32
        /// The kernel watches no longer.
        let isLast: Bool
    }

    private struct Entry {
        let token: UInt64
        let result: Int32
        let flags: UInt32
    }

    /// What is queued is left to the loop, which hands it over before or as it waits.
    var isSubmittedByLoop = false {
        didSet {
            events.removeAll(keepingCapacity: true)
            if !isSubmittedByLoop { submitNow() }
        }
    }
    /// Completions that the loop has met, first in, first out.
    private var finished: [Completion] = []
    private var nextFinished = 0
    /// What keeps the descriptors open whose events are queued.
    private var raised: [AnyObject] = []
    /// Events that the owner of the requests has met. Few: each comes with a call into the kernel.
    private var events: [Event] = []
    /// The events that are handled at the moment.
    private var turn: [Event] = []
    /// More than doorbells ring at once; the rest waits in the kernel.
    private static let turnLimit = 256

    private func forgetRaised() {
        if !raised.isEmpty, unsafe io_uring_sq_ready(ring) == 0 {
            raised.removeAll(keepingCapacity: true)
        }
    }

    private func takeEntry() -> Entry? {
        var found: UnsafeMutablePointer<io_uring_cqe>?
        guard unsafe io_uring_peek_cqe(ring, &found) == 0, let cqe = unsafe found else {
            return nil
        }
        let entry = unsafe Entry(
            token: cqe.pointee.user_data, result: cqe.pointee.res, flags: cqe.pointee.flags)
        unsafe io_uring_cqe_seen(ring, cqe)
        return entry
    }

    private func noteEvent(_ entry: Entry) {
        // What was watched before the loop went away is of no interest.
        guard isSubmittedByLoop else { return }
        events.append(
            Event(
                token: entry.token, result: entry.result,
                isLast: entry.flags & IORING_CQE_F_MORE == 0))
    }

    /// Takes all that the kernel has told: true when requests are finished. `handle` is called for
    /// each event, and may change what is watched.
    func takeAll(_ handle: (Event) -> Void) -> Bool {
        while events.count < Self.turnLimit, let entry = takeEntry() {
            if entry.token & Self.watchBit == 0 {
                finished.append(Completion(token: entry.token, result: entry.result))
            } else {
                noteEvent(entry)
            }
        }
        // What a handler meets meanwhile has its turn next: a guest that rings again while it is
        // served would keep everybody else waiting.
        swap(&events, &turn)
        for event in turn { handle(event) }
        turn.removeAll(keepingCapacity: true)
        return !finished.isEmpty
    }

    /// True if the kernel can watch descriptors for good (Linux 5.13) and leave a success untold
    /// (5.17), which tells of both.
    var canWatch: Bool { unsafe ring.pointee.features & IORING_FEAT_CQE_SKIP != 0 }

    /// Has the kernel tell whenever `descriptor` gets readable, under `token` with `watchBit` set.
    func watch(_ descriptor: Int32, token: UInt64) {
        let entry = unsafe freeEntry()
        // SAFETY: the entry is the ring's own until it is submitted.
        unsafe io_uring_prep_poll_multishot(entry, descriptor, UInt32(POLLIN))
        unsafe entry.pointee.user_data = token
    }

    /// Ends a `watch`, at once: the descriptor may be closed afterwards.
    func unwatch(token: UInt64) {
        let entry = unsafe freeEntry()
        // SAFETY: as above.
        unsafe io_uring_prep_poll_remove(entry, token)
        // One that is over already is no failure.
        unsafe beSilent(entry)
        submitNow()
    }

    /// Success is not told; failure is, of a token that belongs to nothing.
    private func beSilent(_ entry: UnsafeMutablePointer<io_uring_sqe>) {
        unsafe entry.pointee.user_data = Self.watchBit
        unsafe entry.pointee.flags |= UInt8(1 << IOSQE_CQE_SKIP_SUCCESS_BIT)
    }

    private func freeEntry() -> UnsafeMutablePointer<io_uring_sqe> {
        while true {
            if let entry = unsafe io_uring_get_sqe(ring) { return unsafe entry }
            submitNow()
        }
    }

    /// Hands over what is queued and waits for anything to be told.
    func submitAndWait() throws(HostError) {
        // The kernel has told already, and tells no second time.
        guard events.isEmpty else {
            submitNow()
            return
        }
        let result = unsafe io_uring_submit_and_wait(ring, 1)
        forgetRaised()
        switch -result {
        case EINTR, EAGAIN, EBUSY: return
        case let code where code > 0: throw HostError("wait for events", code: code)
        default: return
        }
    }

    /// Hands over what is queued and waits until a completion is there.
    package func wait() {
        unsafe _ = io_uring_submit_and_wait(ring, 1)
        forgetRaised()
    }
}

extension IORing: EventSink {
    package func raise(_ descriptor: Int32, of owner: AnyObject) {
        guard isSubmittedByLoop else {
            _ = eventfd_write(descriptor, 1)
            return
        }
        let entry = unsafe freeEntry()
        raised.append(owner)
        // SAFETY: eight bytes that live as long as the ring.
        unsafe io_uring_prep_write(entry, descriptor, one, 8, 0)
        // Fails only when the counter is full, and then the other side is woken anyway.
        unsafe beSilent(entry)
    }
}
