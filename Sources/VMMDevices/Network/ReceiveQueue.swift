import VMMBase
import VMMHost
import VMMNetwork
import VMMVirtIO

/// Frames from the host to the guest, of one queue. Belongs to the loop that serves it.
final class ReceiveQueue: QueueServer {
    /// What a driver's receive buffer holds at least: a frame behind its header (5.1.6.3).
    private static let leastByteCount: UInt64 = 1514 + TapInterface.headerByteCount

    private let queue: VirtQueue
    private let backend: any FrameBackend
    private let limit: FrameLimit?
    private let counter: FrameCounter
    /// Buffers taken from the queue and not filled yet.
    private var waiting: WaitingBuffers
    /// The first waiting buffers as one list, for a frame that spans several.
    private let room: GuestVector
    /// How many buffers are in the list.
    private var listed = 0
    private let neededByteCount: UInt64
    /// Bytes with header of a frame that lies in `room` and that the limit holds back.
    private var held: Int?

    /// `frameByteCount`: the largest frame that may come, with its header.
    init(
        _ queue: VirtQueue, _ backend: any FrameBackend, limiter: RateLimiter?,
        counter: FrameCounter, mergesBuffers: Bool, frameByteCount: UInt64
    ) throws(HostError) {
        self.queue = queue
        self.backend = backend
        self.counter = counter
        limit = try limiter.map { limiter throws(HostError) in try FrameLimit(limiter) }
        waiting = WaitingBuffers(of: queue, limit: mergesBuffers ? Int(queue.size) : 1)
        // What one readv takes (IOV_MAX).
        room = try GuestVectorArena(vectors: 1, capacity: 1024).makeVector()
        neededByteCount = frameByteCount
    }

    var wakeSources: [FileDescriptor] {
        (backend.descriptor.map { [$0] } ?? []) + (limit.map { [$0.timer.descriptor] } ?? [])
    }

    func wake() throws(GuestFault) { try service() }

    func service() throws(GuestFault) {
        var budget = queue.size
        while budget > 0, let count = try nextFrame() {
            let byteCount = UInt64(count) - min(UInt64(count), TapInterface.headerByteCount)
            if let limit, !limit.admits(byteCount) {
                held = count
                break
            }
            held = nil
            budget -= 1
            counter.count(byteCount: byteCount)
            deliver(count)
        }
        queue.notify()
        if budget == 0 { queue.serviceAgain() }
    }

    private func nextFrame() throws(GuestFault) -> Int? {
        if let held { return held }
        return try collectRoom() ? backend.receive(into: room) : nil
    }

    /// Takes buffers until they hold the largest frame. False when the driver has not enough yet:
    /// it rings when it adds some.
    private func collectRoom() throws(GuestFault) -> Bool {
        queue.suppressDoorbell()
        while waiting.byteCount < neededByteCount, let free = waiting.nextFree() {
            guard try queue.pop(into: free) else {
                if queue.armDoorbell() { continue }
                return false
            }
            waiting.addNextFree()
        }
        // A driver whose buffers are too small for a frame gets none.
        guard waiting.byteCount >= Self.leastByteCount else { return false }
        while listed < waiting.count, room.append(waiting[listed].writable) { listed += 1 }
        return true
    }

    /// Gives back the buffers that a frame of `count` bytes filled, first in the first.
    private func deliver(_ count: Int) {
        var rest = UInt64(count)
        var used = 0
        repeat {
            rest -= min(rest, waiting[used].writable.byteCount)
            used += 1
        } while rest > 0 && used < waiting.count
        // The header's last field, the number of buffers (5.1.6.1).
        waiting[0].writable.store(UInt8(truncatingIfNeeded: used), at: 10)
        waiting[0].writable.store(UInt8(truncatingIfNeeded: used >> 8), at: 11)
        rest = UInt64(count)
        listed -= used
        for _ in 0..<used {
            let buffer = waiting.removeFirst()
            room.removeFirst(Int(clamping: buffer.writable.byteCount))
            let part = min(rest, buffer.writable.byteCount)
            rest -= part
            queue.push(buffer, written: UInt32(clamping: part))
        }
    }
}
