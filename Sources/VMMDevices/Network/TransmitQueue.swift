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
    /// `chain` has a frame that the limit holds back.
    private var isHeld = false

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

    var wakeSources: [FileDescriptor] { limit.map { [$0.timer.descriptor] } ?? [] }

    /// The limit's time is up.
    func wake() throws(GuestFault) {
        if isHeld { try service() }
    }

    func service() throws(GuestFault) {
        defer { backend.flush() }
        // A queue's worth of frames, then the loop's other devices have their turn.
        var budget = queue.size
        repeat {
            queue.suppressDoorbell()
            while budget > 0 {
                if !isHeld {
                    guard try queue.pop(into: chain) else { break }
                    guard chain.readable.byteCount > TapInterface.headerByteCount else {
                        throw GuestFault("frame without a header", UInt64(chain.head))
                    }
                }
                budget -= 1
                let byteCount = chain.readable.byteCount - TapInterface.headerByteCount
                isHeld = limit.map { !$0.admits(byteCount) } ?? false
                if isHeld {
                    queue.notify()
                    return
                }
                backend.send(chain.readable)
                counter.count(byteCount: byteCount)
                queue.push(chain, written: 0)
            }
        } while queue.armDoorbell() && budget > 0
        queue.notify()
        if budget == 0 { queue.serviceAgain() }
    }
}
