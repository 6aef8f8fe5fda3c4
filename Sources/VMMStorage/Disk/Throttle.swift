import VMMBase
import VMMHost

/// The requests of one queue that a rate limit holds back, in their order. Its timer runs only
/// while there are any. One thread: the queue's loop.
final class Throttle {
    let timer: Timer
    private let limiter: RateLimiter
    private var held: [(slot: Int, byteCount: UInt64)] = []
    private var first = 0

    init(_ limiter: RateLimiter) throws(HostError) {
        self.limiter = limiter
        timer = try Timer()
    }

    /// True when the request may go; else it is held, behind those that came before.
    func admits(_ byteCount: UInt64, slot: Int) -> Bool {
        if first == held.count {
            let wait = limiter.admit(byteCount: byteCount)
            if wait == 0 { return true }
            timer.set(nanoseconds: wait)
        }
        held.append((slot, byteCount))
        return false
    }

    /// The next held request that may go now; nil, with the timer set, when it is too early.
    func nextAdmitted() -> Int? {
        guard first < held.count else { return nil }
        timer.clear()
        let wait = limiter.admit(byteCount: held[first].byteCount)
        if wait > 0 {
            timer.set(nanoseconds: wait)
            return nil
        }
        return next()
    }

    /// The next held request, whatever the limit says.
    func next() -> Int? {
        guard first < held.count else { return nil }
        let slot = held[first].slot
        first += 1
        if first == held.count {
            held.removeAll(keepingCapacity: true)
            first = 0
        }
        return slot
    }
}
