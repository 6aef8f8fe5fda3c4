import Synchronization
import VMMBase

/// The MSI-X table and pending bits of one function (PCI Local Bus 3.0, 6.8.2). vCPU threads
/// program it, device threads signal; any thread.
package final class MSIX: Sendable {
    /// A virtio vector number that means "no interrupt" (VirtIO 1.3, 4.1.4.3).
    package static let noVector: UInt16 = 0xffff
    package static let entryByteCount = 16

    private struct Entry {
        var address: UInt64 = 0
        var data: UInt32 = 0
        var isMasked = true
        var isPending = false
        /// What the vector's route was last set to, so that only changes reach the kernel.
        var routed: InterruptMessage?
        /// A thread carries a route to the kernel; until it is there, interrupts are pending.
        var isRouting = false

        var message: InterruptMessage { InterruptMessage(address: address, data: data) }
    }

    private struct State {
        var entries: [Entry]
        var isEnabled = false
        var isFunctionMasked = false
    }

    private let vectors: [any MessageInterrupt]
    private let state: Mutex<State>

    package init(vectorCount: Int, source: any MessageInterruptSource) {
        vectors = (0..<vectorCount).map { _ in source.makeMessageInterrupt() }
        state = Mutex(State(entries: Array(repeating: Entry(), count: vectorCount)))
    }

    package var vectorCount: Int { vectors.count }

    /// Follows the guest's write to Message Control.
    package func setControl(enabled: Bool, functionMasked: Bool) {
        let effects = state.withLock { state in
            state.isEnabled = enabled
            state.isFunctionMasked = functionMasked
            return state.entries.indices.flatMap { Self.settle($0, &state) }
        }
        perform(effects)
    }

    /// Sends the interrupt of `vector`, or remembers it while it is masked. With a sink it is sent
    /// when that next hands work to the kernel.
    package func signal(_ vector: UInt16, through sink: (any EventSink)? = nil) {
        let index = Int(vector)
        guard index < vectors.count else { return }
        let deliver = state.withLock { state in
            guard state.isEnabled else { return false }
            if Self.isDeliverable(index, state), !state.entries[index].isRouting { return true }
            state.entries[index].isPending = true
            return false
        }
        guard deliver else { return }
        if let sink { vectors[index].signal(through: sink) } else { vectors[index].signal() }
    }

    /// Gives all vectors back, for a function that leaves a machine that goes on.
    package func release() {
        for vector in vectors { vector.release() }
    }

    // MARK: registers

    package func readTable(offset: UInt64, width: AccessWidth) -> UInt64 {
        state.withLock { state in
            let index = Int(offset / 16)
            guard index < state.entries.count, offset % 16 + UInt64(width.rawValue) <= 16 else {
                return width.allOnes
            }
            let entry = state.entries[index]
            let low = entry.address
            let high = UInt64(entry.data) | (entry.isMasked ? 1 << 32 : 0)
            let word = offset % 16 < 8 ? low : high
            return (word >> (8 * (offset % 8))) & width.allOnes
        }
    }

    /// Only aligned accesses of 4 and 8 bytes are defined; others change nothing.
    package func writeTable(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard width == .doubleWord || width == .quadWord, offset % UInt64(width.rawValue) == 0
        else {
            return
        }
        let effects = state.withLock { state -> [Effect] in
            let index = Int(offset / 16)
            guard index < state.entries.count else { return [] }
            Self.store(UInt32(truncatingIfNeeded: value), at: offset % 16, &state.entries[index])
            if width == .quadWord {
                Self.store(
                    UInt32(truncatingIfNeeded: value >> 32), at: offset % 16 + 4,
                    &state.entries[index])
            }
            return Self.settle(index, &state)
        }
        perform(effects)
    }

    package func readPending(offset: UInt64, width: AccessWidth) -> UInt64 {
        state.withLock { state in
            (0..<8 * width.byteCount).reduce(UInt64(0)) { bits, bit in
                let index = Int(clamping: offset &* 8) &+ bit
                let isPending =
                    state.entries.indices.contains(index) && state.entries[index].isPending
                return bits | (isPending ? 1 << UInt64(bit) : 0)
            }
        }
    }

    private static func store(_ value: UInt32, at offset: UInt64, _ entry: inout Entry) {
        switch offset {
        case 0: entry.address = entry.address & ~0xffff_ffff | UInt64(value)
        case 4: entry.address = entry.address & 0xffff_ffff | UInt64(value) << 32
        case 8: entry.data = value
        default: entry.isMasked = value & 1 != 0
        }
    }

    // MARK: effects, decided under the lock and carried out after it

    private enum Effect {
        case route(Int, InterruptMessage)
        case signal(Int)
    }

    private static func isDeliverable(_ index: Int, _ state: State) -> Bool {
        state.isEnabled && !state.isFunctionMasked && !state.entries[index].isMasked
    }

    /// What the entry needs now. While a thread routes it, that thread sees to the rest.
    private static func settle(_ index: Int, _ state: inout State) -> [Effect] {
        guard isDeliverable(index, state), !state.entries[index].isRouting else { return [] }
        let message = state.entries[index].message
        if state.entries[index].routed != message {
            state.entries[index].routed = message
            state.entries[index].isRouting = true
            return [.route(index, message)]
        }
        guard state.entries[index].isPending else { return [] }
        state.entries[index].isPending = false
        return [.signal(index)]
    }

    private func perform(_ effects: [Effect]) {
        for effect in effects {
            var next: Effect? = effect
            while let current = next { next = perform(current) }
        }
    }

    /// Carries one effect out; returns what has to follow it.
    private func perform(_ effect: Effect) -> Effect? {
        switch effect {
        case .route(let index, let message):
            vectors[index].route(message)
            return state.withLock { state in
                state.entries[index].isRouting = false
                return Self.settle(index, &state).first
            }
        case .signal(let index):
            vectors[index].signal()
            return nil
        }
    }
}
