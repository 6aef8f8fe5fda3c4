/// Where devices take the time from, so that tests and, later, clock faults can set it.
package protocol HostClock: Sendable {
    /// Nanoseconds since an arbitrary start; never goes back.
    func monotonicNanoseconds() -> UInt64
    /// Nanoseconds since 1970-01-01 00:00 UTC.
    func realtimeNanoseconds() -> UInt64
}
