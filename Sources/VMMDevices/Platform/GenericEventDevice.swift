import Synchronization
import VMMBase
import VMMBus

/// What tells an ACPI guest that something changed (ACPI 6.5, 5.6.9): one byte, whose bits say
/// what, on a level-triggered line. Any thread.
package final class GenericEventDevice: BusDevice {
    /// Bytes of memory-mapped registers.
    package static let byteCount: UInt64 = 1

    /// What has changed, as the DSDT's ESCN method decodes it.
    package struct Event: OptionSet, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        package static let processors = Event(rawValue: 1)
        package static let memory = Event(rawValue: 2)
        package static let pci = Event(rawValue: 4)
        package static let powerButton = Event(rawValue: 8)
    }

    private struct State {
        var pending: Event = []
        var line = LineLevel()
    }

    private let line: any InterruptLine
    private let state = Mutex(State())

    /// `line` is level-triggered.
    package init(line: any InterruptLine) {
        self.line = line
    }

    /// Interrupts the guest until it has read that `event` happened.
    package func notify(_ event: Event) {
        update { $0.formUnion(event) }
    }

    /// Forgets events that the guest has not read.
    package func reset() {
        update { $0 = [] }
    }

    /// The guest reads and thereby acknowledges all events.
    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset == 0 else { return width.allOnes }
        var events: Event = []
        update { pending in
            events = pending
            pending = []
        }
        return UInt64(events.rawValue)
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {}

    private func update(_ change: (inout Event) -> Void) {
        let drives = state.withLock { state in
            change(&state.pending)
            state.line.set(!state.pending.isEmpty)
            return state.line.beginDriving()
        }
        guard drives else { return }
        while let step = state.withLock({ $0.line.nextStep() }) { step.apply(to: line) }
    }
}
