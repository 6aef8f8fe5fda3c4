/// Feature bits that belong to the ring and the transport (VirtIO 1.3, chapter 6); each device
/// adds its own below bit 24.
package enum Feature {
    package static let indirectDescriptors: UInt64 = 1 << 28
    package static let eventIndex: UInt64 = 1 << 29
    package static let version1: UInt64 = 1 << 32

    /// What the ring code offers for every device.
    package static let ring = indirectDescriptors | eventIndex | version1
}
