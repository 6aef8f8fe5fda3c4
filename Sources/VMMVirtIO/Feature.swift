/// Feature bits that belong to the ring and the transport (VirtIO 1.3, chapter 6); each device
/// adds its own below bit 24.
package enum Feature {
    package static let indirectDescriptors: UInt64 = 1 << 28
    package static let eventIndex: UInt64 = 1 << 29
    package static let version1: UInt64 = 1 << 32
    /// Queues have the packed format; offered where the machine says so.
    package static let packedRing: UInt64 = 1 << 34

    /// The driver may reset a queue of a device that works on, and set it up anew (2.6.1).
    package static let queueReset: UInt64 = 1 << 40

    /// What the ring code and the transports offer for every device.
    package static let ring = indirectDescriptors | eventIndex | version1 | queueReset
}
