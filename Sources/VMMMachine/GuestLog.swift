import VMMBase

/// What the log says because of the guest, within limits that outlive it: one that reboots in a
/// loop has no more lines than another.
struct GuestLog: Sendable {
    /// Lines of devices whose drivers break the rules.
    let devices: LogLimiter
    /// Linux also writes to the debug port to pass time, a thousand times a boot; stages are a few
    /// dozen.
    let debugPort: LogLimiter

    init(clock: any HostClock) {
        devices = LogLimiter(clock: clock)
        debugPort = LogLimiter(clock: clock, burst: 64)
    }
}
