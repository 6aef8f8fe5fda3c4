import VMMBase
import VMMBus
import VMMHost

/// What a transport is plugged into.
package struct TransportPlug: Sendable {
    package let memoryBus: Bus
    package let doorbells: any DoorbellBinder
    package let loop: EventLoop
    package let memory: GuestMemory
    /// For lines about drivers that break the rules.
    package let limiter: LogLimiter
    /// What is offered beside the device's own features and `Feature.ring`.
    package let features: UInt64
    /// Told the device's name when its driver has made it ready or has reset it. On the loop.
    package var report: @Sendable (String, Change) -> Void = { _, _ in }

    /// What a driver did to its device.
    package enum Change: Sendable {
        case activated, reset
    }

    package init(
        memoryBus: Bus, doorbells: any DoorbellBinder, loop: EventLoop, memory: GuestMemory,
        limiter: LogLimiter, features: UInt64 = 0
    ) {
        self.memoryBus = memoryBus
        self.doorbells = doorbells
        self.loop = loop
        self.memory = memory
        self.limiter = limiter
        self.features = features
    }
}

/// A device's connection to the guest.
package protocol VirtIOTransport: AnyObject, Sendable {
    /// The device's name.
    var id: String { get }
    /// Makes the device stand still, with nothing in flight; on the loop's thread.
    func pause()
    /// Lets it go on; on the loop's thread.
    func resume()
    /// Takes the device back from the guest; on the loop's thread, or after it has ended.
    func unplug()
}
