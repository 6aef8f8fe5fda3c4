import Testing
import VMMBase

@Suite("RateLimiter")
struct RateLimiterTests {
    /// 1000 tokens a second.
    private func bucket(burst: UInt64 = 0) -> TokenBucket {
        TokenBucket(size: 1000, refillMilliseconds: 1000, oneTimeBurst: burst, now: 0)
    }

    private static let millisecond: UInt64 = 1_000_000

    @Test("a bucket is full at first, and then gives what flows in")
    func flows() {
        var bucket = bucket()
        #expect(bucket.wait(for: 1000, now: 0) == 0)
        bucket.take(1000)

        #expect(bucket.wait(for: 1, now: 0) == Self.millisecond)
        #expect(bucket.wait(for: 250, now: 0) == 250 * Self.millisecond)
        #expect(bucket.wait(for: 250, now: 100 * Self.millisecond) == 150 * Self.millisecond)
        #expect(bucket.wait(for: 250, now: 250 * Self.millisecond) == 0)
    }

    @Test("what does not fit the bucket passes when it is full, and is paid for afterwards")
    func debt() {
        var bucket = bucket()
        #expect(bucket.wait(for: 5000, now: 0) == 0)
        bucket.take(5000)

        #expect(bucket.wait(for: 5000, now: 0) == 5000 * Self.millisecond)
        #expect(bucket.wait(for: 1, now: 0) == 4001 * Self.millisecond)
    }

    @Test("a burst is spent first and never comes back")
    func burst() {
        var bucket = bucket(burst: 500)
        bucket.take(1500)
        #expect(bucket.wait(for: 1000, now: 10_000 * Self.millisecond) == 0)
        #expect(bucket.wait(for: 1001, now: 10_000 * Self.millisecond) == 0)
        bucket.take(1000)
        #expect(bucket.wait(for: 1, now: 10_000 * Self.millisecond) == Self.millisecond)
    }

    @Test("a clock that stands still or a huge bucket does no harm")
    func extremes() {
        var bucket = TokenBucket(
            size: .max, refillMilliseconds: .max, oneTimeBurst: .max, now: .max)
        bucket.take(.max)
        bucket.take(.max)
        // The burst and the bucket are spent; a full bucket takes 292 years.
        #expect(bucket.wait(for: .max, now: 0) == UInt64(Int64.max))
    }

    /// Random sizes of work against a limit of 1 MB/s for a simulated minute.
    @Test("the long-term rate is within one bucket of the limit", arguments: [1, 2, 3] as [UInt64])
    func accuracy(seed: UInt64) {
        var random = Random(seed)
        var bucket = TokenBucket(
            size: 1_000_000, refillMilliseconds: 1000, oneTimeBurst: 0, now: 0)
        var now: UInt64 = 0
        var total: UInt64 = 0
        while now < 60_000 * Self.millisecond {
            let count = random.next() % 200_000
            now += bucket.wait(for: count, now: now)
            bucket.take(count)
            total += count
        }
        // The bucket's first filling, and one request beyond the minute.
        #expect((60_000_000...61_200_000).contains(total))
    }

    @Test("a limiter takes from both buckets or from none")
    func both() {
        let clock = Clock()
        let limiter = RateLimiter(
            bytes: .init(size: 100, refillMilliseconds: 100),
            operations: .init(size: 2, refillMilliseconds: 1000), clock: clock)
        #expect(limiter.admit(byteCount: 50) == 0)
        #expect(limiter.admit(byteCount: 60) == 10 * Self.millisecond)
        #expect(limiter.admit(byteCount: 50) == 0, "a refusal took nothing")
        #expect(limiter.admit(byteCount: 0) == 500 * Self.millisecond)
    }
}

/// A clock that stands still.
private struct Clock: HostClock {
    func monotonicNanoseconds() -> UInt64 { 0 }
    func realtimeNanoseconds() -> UInt64 { 0 }
}

/// SplitMix64: the same numbers for the same seed, everywhere.
struct Random {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}
