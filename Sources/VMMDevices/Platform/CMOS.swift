import Synchronization
import VMMBase
import VMMBus

/// The real-time clock and its battery-backed memory (Motorola MC146818A), at ports 0x70 and 0x71.
/// It shows the host's time in UTC; the guest cannot set it. Any thread.
package final class CMOS: BusDevice {
    /// How many ports it answers at.
    package static let byteCount: UInt64 = 2

    private enum Register {
        static let seconds: UInt8 = 0x00
        static let minutes: UInt8 = 0x02
        static let hours: UInt8 = 0x04
        static let weekday: UInt8 = 0x06
        static let day: UInt8 = 0x07
        static let month: UInt8 = 0x08
        static let year: UInt8 = 0x09
        static let statusA: UInt8 = 0x0a
        static let statusB: UInt8 = 0x0b
        static let statusC: UInt8 = 0x0c
        static let statusD: UInt8 = 0x0d
        static let shutdown: UInt8 = 0x0f
        static let century: UInt8 = 0x32
        /// Memory between 16 MiB and 4 GiB in units of 64 KiB, low and high byte.
        static let memoryBelow4GLow: UInt8 = 0x34
        static let memoryBelow4GHigh: UInt8 = 0x35
        /// Memory above 4 GiB in units of 64 KiB, three bytes.
        static let memoryAbove4GLow: UInt8 = 0x5b
        static let memoryAbove4GMiddle: UInt8 = 0x5c
        static let memoryAbove4GHigh: UInt8 = 0x5d
    }

    /// 32.768 kHz time base and the usual rate.
    private static let timeBase: UInt8 = 0x26
    private static let updateInProgress: UInt8 = 0x80
    /// The chip announces an update this long before it, in nanoseconds: 244 us (data sheet).
    private static let updateLead: UInt64 = 244_000
    /// 24-hour mode, BCD.
    private static let format: UInt8 = 0x02
    private static let batteryGood: UInt8 = 0x80

    private struct State {
        var index: UInt8 = 0
        var memory = [UInt8](repeating: 0, count: 128)
    }

    private let clock: any HostClock
    private let memoryBelow4G: UInt64
    private let memoryAbove4G: UInt64
    private let reset: @Sendable () -> Void
    private let state = Mutex(State())

    /// Memory sizes in bytes, below and above 4 GiB; `reset` is called, without locks, when the
    /// guest asks for a restart through the shutdown byte.
    package init(
        clock: any HostClock, memoryBelow4G: UInt64, memoryAbove4G: UInt64,
        reset: @escaping @Sendable () -> Void
    ) {
        self.clock = clock
        self.memoryBelow4G = min(0xffff, (max(memoryBelow4G, 16 << 20) - (16 << 20)) >> 16)
        self.memoryAbove4G = min(0xff_ffff, memoryAbove4G >> 16)
        self.reset = reset
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset == 1 else { return width.allOnes }
        let (index, stored) = state.withLock { state -> (UInt8, UInt8) in
            let index = state.index & 0x7f
            return (index, state.memory[Int(index)])
        }
        return UInt64(computed(index) ?? stored)
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let byte = UInt8(truncatingIfNeeded: value)
        let resets = state.withLock { state -> Bool in
            if offset == 0 {
                state.index = byte
                return false
            }
            guard offset == 1 else { return false }
            state.memory[Int(state.index & 0x7f)] = byte
            return state.index == Register.shutdown | 0x80 && byte == 0
        }
        if resets { reset() }
    }

    /// Registers that are not memory; nil for those that are.
    private func computed(_ index: UInt8) -> UInt8? {
        switch index {
        case Register.statusA: return Self.timeBase | (isUpdating ? Self.updateInProgress : 0)
        case Register.statusB: return Self.format
        case Register.statusC: return 0
        case Register.statusD: return Self.batteryGood
        case Register.memoryBelow4GLow: return UInt8(truncatingIfNeeded: memoryBelow4G)
        case Register.memoryBelow4GHigh: return UInt8(truncatingIfNeeded: memoryBelow4G >> 8)
        case Register.memoryAbove4GLow: return UInt8(truncatingIfNeeded: memoryAbove4G)
        case Register.memoryAbove4GMiddle: return UInt8(truncatingIfNeeded: memoryAbove4G >> 8)
        case Register.memoryAbove4GHigh: return UInt8(truncatingIfNeeded: memoryAbove4G >> 16)
        default: return time(index)
        }
    }

    private var isUpdating: Bool {
        clock.realtimeNanoseconds() % 1_000_000_000 >= 1_000_000_000 - Self.updateLead
    }

    private func time(_ index: UInt8) -> UInt8? {
        func now() -> CalendarTime {
            CalendarTime(secondsSince1970: clock.realtimeNanoseconds() / 1_000_000_000)
        }
        switch index {
        case Register.seconds: return Self.decimal(now().second)
        case Register.minutes: return Self.decimal(now().minute)
        case Register.hours: return Self.decimal(now().hour)
        case Register.weekday: return Self.decimal(now().weekday)
        case Register.day: return Self.decimal(now().day)
        case Register.month: return Self.decimal(now().month)
        case Register.year: return Self.decimal(now().year % 100)
        case Register.century: return Self.decimal(now().year / 100)
        default: return nil
        }
    }

    /// Two decimal digits in one byte; `value` is below 100.
    private static func decimal(_ value: UInt64) -> UInt8 {
        UInt8(truncatingIfNeeded: (value / 10 % 10) << 4 | value % 10)
    }
}
