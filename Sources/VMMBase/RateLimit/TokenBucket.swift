/// A rate with room for bursts: tokens flow in at `size` every `refillNanoseconds`, up to `size`,
/// and each piece of work takes some. A full bucket lets any piece through and may be left in debt,
/// so that the long-term rate holds whatever the pieces' sizes are.
package struct TokenBucket: Sendable {
    package let size: UInt64
    package let refillNanoseconds: UInt64
    /// What may be spent once, before the bucket's own tokens.
    private var burst: UInt64
    /// Tokens times `refillNanoseconds`, so that nothing is lost to rounding; below zero: debt.
    private var level: Int128
    private var updated: UInt64

    /// `size` tokens every `refillMilliseconds`, both at least 1, full at `now` (nanoseconds).
    package init(size: UInt64, refillMilliseconds: UInt64, oneTimeBurst: UInt64, now: UInt64) {
        precondition(size > 0 && refillMilliseconds > 0, "a bucket that fills")
        self.size = size
        // At most 292 years: products with any size fit 128 bits.
        let (nanoseconds, overflow) = refillMilliseconds.multipliedReportingOverflow(by: 1_000_000)
        refillNanoseconds = min(overflow ? .max : nanoseconds, UInt64(Int64.max))
        burst = oneTimeBurst
        updated = now
        level = Int128(size) * Int128(refillNanoseconds)
    }

    private var full: Int128 { Int128(size) * Int128(refillNanoseconds) }

    private mutating func refill(_ now: UInt64) {
        guard now > updated else { return }
        let gain = Int128(min(now - updated, UInt64(Int64.max))) * Int128(size)
        let (sum, overflow) = level.addingReportingOverflow(gain)
        level = overflow ? full : min(full, sum)
        updated = now
    }

    /// Nanoseconds from `now` until `count` tokens may be taken; 0: at once.
    package mutating func wait(for count: UInt64, now: UInt64) -> UInt64 {
        refill(now)
        guard burst < count else { return 0 }
        let needed = Int128(min(count - burst, size)) * Int128(refillNanoseconds)
        guard level < needed else { return 0 }
        let (lack, overflow) = needed.subtractingReportingOverflow(level)
        if overflow { return .max }
        let (whole, rest) = lack.quotientAndRemainder(dividingBy: Int128(size))
        return UInt64(clamping: whole + (rest > 0 ? 1 : 0))
    }

    /// Takes `count` tokens; where `wait` was not 0, as a debt.
    package mutating func take(_ count: UInt64) {
        let once = min(burst, count)
        burst -= once
        let (rest, overflow) = level.subtractingReportingOverflow(
            Int128(count - once) * Int128(refillNanoseconds))
        level = overflow ? .min : rest
    }
}
