import Synchronization

/// A limit on bytes and on operations, for one device or shared by several. Any thread. It has no
/// timer: who is told to wait sets one of its own.
package final class RateLimiter: Sendable {
    /// One bucket as users give it.
    package struct Bucket: Equatable, Sendable {
        package let size: UInt64
        package let refillMilliseconds: UInt64
        package let oneTimeBurst: UInt64

        package init(size: UInt64, refillMilliseconds: UInt64, oneTimeBurst: UInt64 = 0) {
            self.size = size
            self.refillMilliseconds = refillMilliseconds
            self.oneTimeBurst = oneTimeBurst
        }
    }

    private struct State {
        var bytes: TokenBucket?
        var operations: TokenBucket?
    }

    private let state: Mutex<State>
    private let clock: any HostClock

    package init(bytes: Bucket?, operations: Bucket?, clock: any HostClock) {
        let now = clock.monotonicNanoseconds()
        func bucket(_ bucket: Bucket?) -> TokenBucket? {
            bucket.map {
                TokenBucket(
                    size: $0.size, refillMilliseconds: $0.refillMilliseconds,
                    oneTimeBurst: $0.oneTimeBurst, now: now)
            }
        }
        state = Mutex(State(bytes: bucket(bytes), operations: bucket(operations)))
        self.clock = clock
    }

    /// Admits one operation of `byteCount` bytes: 0, and the tokens are taken; or else the
    /// nanoseconds after which to ask again, and nothing is taken.
    package func admit(byteCount: UInt64) -> UInt64 {
        let now = clock.monotonicNanoseconds()
        return state.withLock { state in
            let wait = max(
                state.bytes?.wait(for: byteCount, now: now) ?? 0,
                state.operations?.wait(for: 1, now: now) ?? 0)
            if wait == 0 {
                state.bytes?.take(byteCount)
                state.operations?.take(1)
            }
            return wait
        }
    }

    /// Counts one operation that did not wait: what comes later waits for it, too.
    package func charge(byteCount: UInt64) {
        let now = clock.monotonicNanoseconds()
        state.withLock { state in
            // Up to now, as far as the buckets' sizes allow.
            _ = state.bytes?.wait(for: 0, now: now)
            _ = state.operations?.wait(for: 0, now: now)
            state.bytes?.take(byteCount)
            state.operations?.take(1)
        }
    }
}
