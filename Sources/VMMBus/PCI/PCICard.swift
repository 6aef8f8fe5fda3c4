/// A PCI function that is no virtio device, made for one life of a machine.
package protocol PCICard: PCIFunction {
    /// Lets go of the machine's buses, when that life is over.
    func unplug()
}
