import VMMBase
import VMMHost

/// A rate limit on the frames of one queue: at most one frame waits for it, and those behind stay
/// where they are. The timer runs only while one does.
final class FrameLimit {
    let timer: Timer
    private let limiter: RateLimiter

    init(_ limiter: RateLimiter) throws(HostError) {
        self.limiter = limiter
        timer = try Timer()
    }

    /// Whether a frame of so many bytes may pass; if not, the timer is set for the next try.
    func admits(_ byteCount: UInt64) -> Bool {
        let wait = limiter.admit(byteCount: byteCount)
        if wait == 0 { return true }
        timer.set(nanoseconds: wait)
        return false
    }
}
