import Synchronization
import VMMBase
import VMMBus

/// An I/O APIC with 24 pins (Intel 82093AA), in front of the kernel's local APICs. Lines are
/// logical: true is asserted, whatever the polarity bit says. Any thread.
package final class IOAPIC: BusDevice {
    /// GSIs 0 to 23.
    package static let pinCount = 24
    /// The register window's range on the memory bus, in bytes.
    package static let byteCount: UInt64 = 0x1000

    /// Version 0x11, and the number of the last pin in bits 16 to 23 (3.2.2).
    private static let version: UInt32 = 0x0017_0011

    private enum Window {
        static let select: UInt64 = 0x00
        static let data: UInt64 = 0x10
    }

    private struct State {
        var selected: UInt8 = 0
        var id: UInt32 = 0
        var pins = Array(repeating: IOAPICPin(), count: IOAPIC.pinCount)
    }

    /// What is left to do when the lock has been released.
    private struct Effect {
        var pin = 0
        var route: InterruptMessage?
        var isRouteChanged = false
        var delivery: InterruptMessage?
    }

    private let sink: any InterruptPinSink
    private let state = Mutex(State())

    /// `sink` is called without locks, on the thread that drives a line or writes a register.
    package init(sink: any InterruptPinSink) {
        self.sink = sink
    }

    /// The input of `pin` (0 to 23), for one source: sources that share a pin must agree among
    /// themselves.
    package func line(_ pin: Int) -> any InterruptLine {
        precondition((0..<Self.pinCount).contains(pin), "an I/O APIC has pins 0 to 23")
        return Line(chip: self, pin: pin)
    }

    /// The guest ended the interrupt of `vector`, as the kernel reports for level-triggered ones.
    package func endOfInterrupt(vector: UInt8) {
        let effects = state.withLock { state in
            state.pins.indices.compactMap { index in
                Self.update(index, &state) { $0.endOfInterrupt(vector) }
            }
        }
        for effect in effects { perform(effect) }
    }

    /// Back to power-on: all pins masked. The lines stay as their sources drive them.
    package func reset() {
        let effects = state.withLock { state in
            state.selected = 0
            state.id = 0
            return state.pins.indices.compactMap { index in
                Self.update(index, &state) { $0.reset() }
            }
        }
        for effect in effects { perform(effect) }
    }

    // MARK: registers

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        let value = state.withLock { state -> UInt32 in
            switch offset {
            case Window.select: UInt32(state.selected)
            case Window.data: Self.readSelected(state)
            default: 0
            }
        }
        return UInt64(value) & width.allOnes
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let effect = state.withLock { state -> Effect? in
            switch offset {
            case Window.select:
                state.selected = UInt8(truncatingIfNeeded: value)
                return nil
            case Window.data:
                return Self.writeSelected(&state, UInt32(truncatingIfNeeded: value))
            default:
                // 0x40 is the end-of-interrupt register of version 0x20; this one has none.
                return nil
            }
        }
        if let effect { perform(effect) }
    }

    /// The pin and half of the entry that a register number selects (3.2.4).
    private static func entry(_ register: UInt8) -> (pin: Int, isHigh: Bool)? {
        guard register >= 0x10 else { return nil }
        let pin = Int(register &- 0x10) / 2
        return pin < pinCount ? (pin, register & 1 != 0) : nil
    }

    private static func readSelected(_ state: State) -> UInt32 {
        if let (pin, isHigh) = entry(state.selected) {
            let entry = state.pins[pin].entry
            return UInt32(truncatingIfNeeded: isHigh ? entry >> 32 : entry)
        }
        switch state.selected {
        case 0, 2: return state.id
        case 1: return version
        default: return 0
        }
    }

    private static func writeSelected(_ state: inout State, _ value: UInt32) -> Effect? {
        if let (pin, isHigh) = entry(state.selected) {
            return update(pin, &state) { $0.write(value, isHigh: isHigh) }
        }
        if state.selected == 0 { state.id = value & 0x0f00_0000 }
        return nil
    }

    // MARK: effects

    /// Changes a pin; returns what the local APICs must be told, if anything.
    private static func update(
        _ index: Int, _ state: inout State, _ change: (inout IOAPICPin) -> Void
    ) -> Effect? {
        let before = state.pins[index].route
        change(&state.pins[index])
        var effect = Effect(pin: index, delivery: state.pins[index].takeDelivery())
        effect.route = state.pins[index].route
        effect.isRouteChanged = effect.route != before
        return effect.isRouteChanged || effect.delivery != nil ? effect : nil
    }

    private func perform(_ effect: Effect) {
        // First the route: the kernel must know the vector whose end it is to report.
        if effect.isRouteChanged { sink.route(pin: effect.pin, effect.route) }
        if let message = effect.delivery { sink.deliver(message) }
    }

    private func set(_ pin: Int, _ level: Bool) {
        let effect = state.withLock { state in
            Self.update(pin, &state) { $0.setLine(level) }
        }
        if let effect { perform(effect) }
    }

    private struct Line: InterruptLine {
        let chip: IOAPIC
        let pin: Int

        func set(_ level: Bool) { chip.set(pin, level) }
    }
}
