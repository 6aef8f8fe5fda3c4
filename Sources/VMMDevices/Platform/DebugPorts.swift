import VMMBase
import VMMBus

/// Port 0x80: boot stages of the guest, each logged with the time since this device was made. Any
/// thread.
package final class DebugPort: BusDevice {
    /// Where it answers.
    package static let port: UInt64 = 0x80
    /// How many ports it answers at.
    package static let byteCount: UInt64 = 1

    private let clock: any HostClock
    private let start: UInt64
    private let limiter: LogLimiter

    /// Times in the log count from now.
    package init(clock: any HostClock, limiter: LogLimiter) {
        self.clock = clock
        self.limiter = limiter
        start = clock.monotonicNanoseconds()
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 { width.allOnes }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let code = UInt8(truncatingIfNeeded: value)
        limiter.warn(Self.line(code, microseconds: (clock.monotonicNanoseconds() &- start) / 1000))
    }

    /// The line that the reference's users search their logs for.
    static func line(_ code: UInt8, microseconds: UInt64) -> String {
        let number = (code < 16 ? "0" : "") + String(code, radix: 16)
        let fraction = String(String(microseconds % 1_000_000 + 1_000_000).dropFirst())
        return "[Debug I/O port: \(stage(code)) code 0x\(number)]"
            + " \(microseconds / 1_000_000).\(fraction) seconds"
    }

    private static func stage(_ code: UInt8) -> String {
        switch code {
        case 0x00..<0x20: "Firmware"
        case 0x20..<0x40: "Bootloader"
        case 0x40..<0x60: "Kernel"
        case 0x60..<0x80: "Userspace"
        default: "Custom"
        }
    }
}

/// Port 0xe9: a console for the earliest code of a guest, which needs no driver. Any thread.
package final class DebugConsole: BusDevice {
    /// Where it answers unless the configuration says otherwise.
    package static let defaultPort: UInt64 = 0xe9
    /// How many ports it answers at.
    package static let byteCount: UInt64 = 1

    /// What a read returns, by which guests know that the console is there.
    private static let signature: UInt64 = 0xe9

    private let channel: any ByteChannel

    /// The channel is started by its owner.
    package init(channel: any ByteChannel) {
        self.channel = channel
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 { Self.signature }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        channel.send(UInt8(truncatingIfNeeded: value))
    }
}
