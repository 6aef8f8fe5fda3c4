import VMMBase
import VMMBus

/// The reset and sleep registers of a hardware-reduced ACPI machine (ACPI 6.5, 4.8.3.6 and
/// 4.8.3.7), which share one port. Any thread.
package final class ACPIPowerRegisters: BusDevice {
    /// The first of its ports.
    package static let firstPort: UInt64 = 0x600
    /// How many ports it answers at.
    package static let byteCount: UInt64 = 8

    /// The value in FADT's RESET_VALUE.
    private static let resetValue: UInt8 = 1
    /// Sleep type 5 in bits 2 to 4, and bit 5, which enters it.
    private static let powerOffValue: UInt8 = 5 << 2 | 1 << 5

    private let reset: @Sendable () -> Void
    private let powerOff: @Sendable () -> Void

    /// Both callbacks come on the vCPU's thread, without locks.
    package init(reset: @escaping @Sendable () -> Void, powerOff: @escaping @Sendable () -> Void) {
        self.reset = reset
        self.powerOff = powerOff
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 { 0 }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset == 0 else { return }
        switch UInt8(truncatingIfNeeded: value) {
        case Self.resetValue: reset()
        case Self.powerOffValue: powerOff()
        default: break
        }
    }
}

/// The ACPI power management timer: 32 bits at 3.579545 MHz (ACPI 6.5, 4.8.2.1). Any thread.
package final class ACPITimer: BusDevice {
    /// The first of its ports.
    package static let firstPort: UInt64 = 0x608
    /// How many ports it answers at.
    package static let byteCount: UInt64 = 4

    private static let frequency: UInt64 = 3_579_545

    private let clock: any HostClock
    private let start: UInt64

    /// The timer starts at zero now.
    package init(clock: any HostClock) {
        self.clock = clock
        start = clock.monotonicNanoseconds()
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset < Self.byteCount else { return width.allOnes }
        let elapsed = clock.monotonicNanoseconds() &- start
        // 128 bits: nanoseconds times the frequency pass 64 bits after an hour and a half. The
        // quotient fits, because the frequency is below the divisor.
        let product = elapsed.multipliedFullWidth(by: Self.frequency)
        let ticks = UInt64(1_000_000_000).dividingFullWidth(product).quotient
        return (ticks & 0xffff_ffff) >> (8 * offset) & width.allOnes
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}
