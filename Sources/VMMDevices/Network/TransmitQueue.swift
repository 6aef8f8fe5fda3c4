import VMMBase
import VMMHost
import VMMNetwork
import VMMVirtIO

/// Frames from the guest to the host, of one queue. Belongs to the loop that serves it.
final class TransmitQueue: QueueServer {
    private let queue: VirtQueue
    private let backend: any FrameBackend
    private let limit: FrameLimit?
    private let counter: FrameCounter
    private let chain: DescriptorChain
    /// What the frame in `chain` waits for; nil: there is none.
    private var held: Wait?

    private enum Wait {
        case limit
        /// The backend's.
        case room
    }

    init?(
        _ queue: VirtQueue, _ backend: any FrameBackend, limiter: RateLimiter?,
        counter: FrameCounter
    ) throws(HostError) {
        guard let chain = try queue.makeChains(1).first else { return nil }
        self.queue = queue
        self.backend = backend
        self.counter = counter
        self.chain = chain
        limit = try limiter.map { limiter throws(HostError) in try FrameLimit(limiter) }
    }

    var wakeSources: [FileDescriptor] {
        [limit?.timer.descriptor, backend.room].compactMap { $0 }
    }

    /// The limit's time is up, or the backend has room.
    func wake() throws(GuestFault) {
        if held != nil { try service() }
    }

    func service() throws(GuestFault) {
        defer { backend.flush() }
        // A queue's worth of frames, then the loop's other devices have their turn.
        var budget = queue.size
        repeat {
            queue.suppressDoorbell()
            while budget > 0 {
                if held == nil {
                    guard try queue.pop(into: chain) else { break }
                    guard chain.readable.byteCount > TapInterface.headerByteCount else {
                        throw GuestFault("frame without a header", UInt64(chain.head))
                    }
                }
                budget -= 1
                let byteCount = chain.readable.byteCount - TapInterface.headerByteCount
                if held != .room, let limit, !limit.admits(byteCount) {
                    held = .limit
                    return queue.notify()
                }
                guard backend.send(chain.readable) else {
                    held = .room
                    return queue.notify()
                }
                held = nil
                counter.count(byteCount: byteCount)
                queue.push(chain, written: 0)
            }
        } while queue.armDoorbell() && budget > 0
        queue.notify()
        if budget == 0 { queue.serviceAgain() }
    }
}
