import VMMBase

/// How fast a guest may have settings of its host's interface changed. Each change holds a lock
/// that all networking of the host shares (rtnl), some for milliseconds.
package struct ChangeLimit {
    /// A driver makes two changes for each XDP program, and a few at its start; one for each pair
    /// when it takes all pairs, and again after a reboot.
    private static func callsPerSecond(pairs: Int) -> UInt64 { 64 + 2 * UInt64(pairs) }

    private var bucket: TokenBucket
    private let clock: any HostClock

    /// For a device of so many pairs of queues.
    package init(pairs: Int, clock: any HostClock) {
        self.clock = clock
        bucket = TokenBucket(
            size: Self.callsPerSecond(pairs: pairs), refillMilliseconds: 1000, oneTimeBurst: 0,
            now: clock.monotonicNanoseconds())
    }

    /// Whether a change that takes so many system calls may be made now.
    mutating func admits(_ calls: Int) -> Bool {
        let count = UInt64(clamping: calls)
        guard bucket.wait(for: count, now: clock.monotonicNanoseconds()) == 0 else { return false }
        bucket.take(count)
        return true
    }
}
