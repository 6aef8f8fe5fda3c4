import Synchronization
import VMMBase
import VMMBus

/// QEMU's `pvpanic-pci`: one register, which tells what can be told, and takes what has happened
/// (QEMU, docs/specs/pvpanic; `reference/cloud-hypervisor.md`). vCPU threads.
package final class PanicDevice: PCICard, BusDevice {
    /// The smallest that a memory BAR can be; the register is its first byte.
    package static let byteCount: UInt64 = 16
    private static let barIndex = 0
    /// What the guest can tell, by its bit, in Cloud Hypervisor's words.
    private static let events: [(bit: UInt8, name: String)] = [(1, "panic"), (2, "crash_loaded")]

    private struct State {
        var space: PCIConfiguration
        /// Where the register answers at present.
        var place: GuestRange?
        /// What was told already: a guest may say it without end.
        var told: UInt8 = 0
    }

    private let bus: Bus
    private let limiter: LogLimiter
    private let panicked: @Sendable (String) -> Void
    private let state: Mutex<State>

    /// The register answers on `bus` at `address` once the guest turns its BAR on. `panicked` hears
    /// each kind of event once.
    package init(
        on bus: Bus, at address: GuestAddress, limiter: LogLimiter,
        panicked: @escaping @Sendable (String) -> Void
    ) {
        self.bus = bus
        self.limiter = limiter
        self.panicked = panicked
        var space = PCIConfiguration(
            PCIConfiguration.Identity(
                vendor: 0x1b36, device: 0x0011, classCode: (base: 8, sub: 0x80, interface: 0)))
        space.addBAR(Self.barIndex, size: Self.byteCount, address: address)
        state = Mutex(State(space: space))
    }

    // MARK: configuration

    package var registers: GuestRange? { state.withLock { $0.space.barPlace(Self.barIndex) } }

    package func readConfiguration(at offset: Int, width: AccessWidth) -> UInt32 {
        state.withLock { $0.space.read(at: offset, width: width) }
    }

    package func writeConfiguration(at offset: Int, width: AccessWidth, value: UInt32) {
        state.withLock { state in
            state.space.write(at: offset, width: width, value: value)
            move(to: state.space.barRange(Self.barIndex), &state)
        }
    }

    /// Lets go of the bus.
    package func unplug() { state.withLock { move(to: nil, &$0) } }

    private func move(to place: GuestRange?, _ state: inout State) {
        guard place != state.place else { return }
        if let old = state.place { bus.detach(at: old.start.rawValue) }
        state.place = place
        guard let place else { return }
        do {
            try bus.attach(self, at: place.start.rawValue, count: place.count)
        } catch {
            // The guest put it over something else: it answers nowhere until moved again.
            state.place = nil
            limiter.debug("pvpanic: BAR not mapped: \(error)")
        }
    }

    // MARK: the register

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        offset == 0 ? UInt64(Self.events.reduce(0) { $0 | $1.bit }) : 0
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset == 0 else { return }
        let bits = UInt8(truncatingIfNeeded: value)
        let news = state.withLock { state in
            defer { state.told |= bits }
            return bits & ~state.told
        }
        for event in Self.events where news & event.bit != 0 { panicked(event.name) }
    }
}
