import VMMBase

/// A function on a PCI bus as its host bridge sees it. vCPU threads call it; it locks for itself.
package protocol PCIFunction: AnyObject, Sendable {
    /// Reads 1, 2 or 4 bytes of configuration space.
    func readConfiguration(at offset: Int, width: AccessWidth) -> UInt32
    /// Writes configuration space; BARs that move are mapped anew before this returns.
    func writeConfiguration(at offset: Int, width: AccessWidth, value: UInt32)
    /// Where its registers are, or would be if the guest let them answer; nil for one without.
    var registers: GuestRange? { get }
}

extension PCIFunction {
    package var registers: GuestRange? { nil }
}
