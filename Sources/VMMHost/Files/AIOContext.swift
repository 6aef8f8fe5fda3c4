import CVMMLinux
import Glibc

/// A Linux AIO context of one thread (io_submit(2)), with room for a fixed number of operations.
@safe package final class AIOContext {
    /// Raised by the kernel with each completion.
    package let completions: EventFD
    private var context: aio_context_t = 0
    private let depth: Int
    /// One block for each operation in flight, and the list of those that wait for `submit`.
    private let blocks: UnsafeMutablePointer<iocb>
    private let queued: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>
    private var queuedCount = 0
    private var free: [Int] = []
    /// Finished, or refused by the kernel, and not asked for yet.
    private var finished: [IORing.Completion] = []
    private var events: [io_event]

    /// `depth`: the most operations queued or in flight.
    package init(depth: UInt32) throws(HostError) {
        self.depth = Int(depth)
        completions = try EventFD()
        unsafe blocks = .allocate(capacity: Int(depth))
        unsafe blocks.initialize(repeating: iocb(), count: Int(depth))
        unsafe queued = .allocate(capacity: Int(depth))
        unsafe queued.initialize(repeating: nil, count: Int(depth))
        free = Array((0..<Int(depth)).reversed())
        finished.reserveCapacity(Int(depth))
        events = Array(repeating: io_event(), count: Int(depth))
        let result = unsafe vmm_io_setup(depth, &context)
        guard result == 0 else { throw .last("create an AIO context") }
    }

    deinit {
        // SAFETY: the owner has drained the context; destroying it waits for stragglers, after
        // which nobody uses the blocks.
        _ = vmm_io_destroy(context)
        unsafe blocks.deallocate()
        unsafe queued.deallocate()
    }

    /// Queues a read, write or flush. At most `depth` are queued or in flight, and the vector stays
    /// untouched until the completion.
    package func enqueue(_ operation: DiskOperation, on file: FileDescriptor, token: UInt64) {
        guard let index = free.popLast() else {
            preconditionFailure("the context has room for every request in flight")
        }
        var block = iocb()
        block.aio_data = token << 16 | UInt64(index)
        block.aio_fildes = UInt32(bitPattern: file.rawValue)
        block.aio_flags = UInt32(IOCB_FLAG_RESFD)
        block.aio_resfd = UInt32(bitPattern: completions.descriptor.rawValue)
        // SAFETY: each vector's slices are checked guest memory, which the caller keeps mapped
        // until the completion; the kernel copies the list of slices at submission.
        switch operation {
        case .read(let vector, let offset):
            block.aio_lio_opcode = UInt16(IOCB_CMD_PREADV)
            unsafe block.aio_buf = UInt64(UInt(bitPattern: vector.base))
            block.aio_nbytes = UInt64(vector.count)
            block.aio_offset = Int64(clamping: offset)
        case .write(let vector, let offset):
            block.aio_lio_opcode = UInt16(IOCB_CMD_PWRITEV)
            unsafe block.aio_buf = UInt64(UInt(bitPattern: vector.base))
            block.aio_nbytes = UInt64(vector.count)
            block.aio_offset = Int64(clamping: offset)
        case .flush:
            block.aio_lio_opcode = UInt16(IOCB_CMD_FDSYNC)
        case .range, .zeros:
            preconditionFailure("AIO has no operations on ranges")
        }
        unsafe blocks[index] = block
        unsafe queued[queuedCount] = blocks + index
        queuedCount += 1
    }

    /// Hands all queued operations to the kernel, in one call unless it takes only some.
    package func submit() {
        var start = 0
        while start < queuedCount {
            // SAFETY: the list holds queuedCount pointers to blocks in use.
            let taken = unsafe vmm_io_submit(context, queuedCount - start, queued + start)
            if taken > 0 {
                start += Int(taken)
                continue
            }
            // The first one is refused: it fails, and the rest have their turn.
            if let block = unsafe queued[start] {
                let data = unsafe block.pointee.aio_data
                free.append(Int(data & 0xffff))
                finished.append(IORing.Completion(token: data >> 16, result: -errno))
                completions.signal()
            }
            start += 1
        }
        queuedCount = 0
    }

    /// The next finished operation, or nil.
    package func nextCompletion() -> IORing.Completion? {
        if finished.isEmpty { collect(least: 0) }
        return finished.popLast()
    }

    /// Hands over what is queued and waits until a completion is there.
    package func wait() {
        submit()
        if finished.isEmpty { collect(least: 1) }
    }

    private func collect(least: Int) {
        // Before looking, so that what comes meanwhile raises it anew.
        completions.clear()
        let count = retryingInterrupts {
            unsafe vmm_io_getevents(context, least, events.count, &events)
        }
        for event in events.prefix(max(0, Int(count))) {
            free.append(Int(event.data & 0xffff))
            finished.append(
                IORing.Completion(token: event.data >> 16, result: Int32(clamping: event.res)))
        }
    }
}
