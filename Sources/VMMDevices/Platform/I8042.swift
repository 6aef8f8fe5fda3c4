import VMMBase
import VMMBus

/// The part of a keyboard controller that guests restart a machine with, at ports 0x61 to 0x64.
/// There is no keyboard, and probing for one ends at once. Any thread.
package final class I8042: BusDevice {
    /// The first of its ports.
    package static let firstPort: UInt64 = 0x61
    /// How many ports it answers at.
    package static let byteCount: UInt64 = 4

    private static let systemControl: UInt64 = 0
    private static let command: UInt64 = 3
    private static let resetCommand: UInt8 = 0xfe
    /// Port B: refresh of memory goes on, the speaker is off.
    private static let refreshing: UInt64 = 0x20
    /// Output always full, input always free. A driver that empties the output gives up after 16
    /// bytes ("no controller found"), and one that waits for the input before the reset command
    /// does not wait. Zero would cost a probe half a second of waiting for an answer.
    private static let status: UInt64 = 0x01

    private let reset: @Sendable () -> Void

    /// `reset` is called when the guest pulses the reset line.
    package init(reset: @escaping @Sendable () -> Void) {
        self.reset = reset
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        switch offset {
        case Self.systemControl: Self.refreshing
        case Self.command: Self.status
        default: width.allOnes
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset == Self.command, UInt8(truncatingIfNeeded: value) == Self.resetCommand else {
            return
        }
        reset()
    }
}
