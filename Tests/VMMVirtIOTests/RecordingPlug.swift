import Synchronization
import VMMBase
import VMMBus
import VMMHost
import VMMVirtIO

/// Vectors that count their signals once they are routed.
final class RecordingInterrupts: MessageInterruptSource {
    final class Vector: MessageInterrupt {
        private let state = Mutex((routed: InterruptMessage?.none, signals: 0, isReleased: false))

        func route(_ message: InterruptMessage?) { state.withLock { $0.routed = message } }
        func signal() { state.withLock { $0.signals += 1 } }
        func release() { state.withLock { $0.isReleased = true } }
        var isReleased: Bool { state.withLock { $0.isReleased } }
        var signals: Int { state.withLock { $0.signals } }
        var routed: InterruptMessage? { state.withLock { $0.routed } }
    }

    private let made = Mutex<[Vector]>([])

    func makeMessageInterrupt() -> any MessageInterrupt {
        let vector = Vector()
        made.withLock { $0.append(vector) }
        return vector
    }

    var vectors: [Vector] { made.withLock { $0 } }
}

/// Remembers which addresses ring which doorbell.
final class RecordingDoorbells: DoorbellBinder {
    struct Refusal: Error {}

    private let bound = Mutex<[Doorbell: EventFD]>([:])
    private let failures = Mutex(0)

    func bind(_ event: EventFD, to doorbell: Doorbell) throws {
        let isTaken = bound.withLock { bound in
            if bound[doorbell] != nil { return true }
            bound[doorbell] = event
            return false
        }
        guard isTaken else { return }
        failures.withLock { $0 += 1 }
        throw Refusal()
    }

    func unbind(_ event: EventFD, from doorbell: Doorbell) {
        bound.withLock { _ = $0.removeValue(forKey: doorbell) }
    }

    var addresses: [UInt64] { bound.withLock { $0.keys.map(\.address.rawValue).sorted() } }
    /// The values that ring, where they tell queues apart.
    var values: [UInt32] { bound.withLock { $0.keys.compactMap(\.value).sorted() } }
    /// How often an address was bound that already was.
    var doubleCount: Int { failures.withLock { $0 } }
    func event(at address: UInt64, value: UInt32? = nil) -> EventFD? {
        bound.withLock { $0[Doorbell(address: GuestAddress(address), value: value)] }
    }
}

/// A register that answers with one byte everywhere: the neighbour of a BAR.
final class ConstantDevice: BusDevice {
    let byte: UInt8
    init(_ byte: UInt8) { self.byte = byte }

    func read(offset: UInt64, width: AccessWidth) -> UInt64 { UInt64(byte) }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {}
}
