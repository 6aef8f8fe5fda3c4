import Synchronization
import VMMDevices

/// Lets what a guest does once in a life through once. It runs on until the control loop acts, and
/// may ask for the same again and again meanwhile. Any thread.
final class OncePerLife: Sendable {
    private let told = Atomic<UInt8>(0)

    /// False when the like of it was told before: a guest that ends has no use for another end.
    func admits(_ event: MachineEvent) -> Bool {
        guard let kind = Self.kind(of: event) else { return true }
        return told.bitwiseOr(kind, ordering: .relaxed).oldValue & kind == 0
    }

    /// One bit for all that ends a life, one for what begins its work. The rest the guest cannot
    /// repeat.
    private static func kind(of event: MachineEvent) -> UInt8? {
        switch event {
        case .reset, .powerOff, .crashed, .device(.watchdogExpired): 1
        case .device(.ready): 2
        case .ejected, .failed, .device(.panicked): nil
        }
    }
}
