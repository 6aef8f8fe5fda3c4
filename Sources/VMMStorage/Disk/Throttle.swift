import VMMBase
import VMMHost

/// The requests of one queue that a rate limit holds back, in their order. Its timer runs only
/// while there are any. One thread: the queue's loop.
final class Throttle {
    let timer: Timer
    private let limiter: RateLimiter
    /// A ring with a place for each request that the queue can have.
    private var held: [(slot: Int, byteCount: UInt64)]
    private var first = 0
    private var count = 0

    /// For a queue of at most `depth` requests.
    init(_ limiter: RateLimiter, depth: Int) throws(HostError) {
        self.limiter = limiter
        held = Array(repeating: (0, 0), count: depth)
        timer = try Timer()
    }

    /// True when the request may go; else it is held, behind those that came before.
    func admits(_ byteCount: UInt64, slot: Int) -> Bool {
        if count == 0 {
            let wait = limiter.admit(byteCount: byteCount)
            if wait == 0 { return true }
            timer.set(nanoseconds: wait)
        }
        held[(first + count) % held.count] = (slot, byteCount)
        count += 1
        return false
    }

    /// The next held request that may go now; nil, with the timer set, when it is too early.
    func nextAdmitted() -> Int? {
        guard count > 0 else { return nil }
        timer.clear()
        let wait = limiter.admit(byteCount: held[first].byteCount)
        if wait > 0 {
            timer.set(nanoseconds: wait)
            return nil
        }
        return removeFirst().slot
    }

    /// The next held request, before its time, for a pause. It counts all the same: what comes
    /// after the pause waits for it.
    func next() -> Int? {
        guard count > 0 else { return nil }
        let request = removeFirst()
        limiter.charge(byteCount: request.byteCount)
        return request.slot
    }

    private func removeFirst() -> (slot: Int, byteCount: UInt64) {
        defer {
            first = (first + 1) % held.count
            count -= 1
        }
        return held[first]
    }
}
