import Synchronization
import VMMBase
import VMMBus
import VMMDevices
import VMMFirmware
import VMMHost
import VMMVirtIO

/// One life of a virtual machine, from its first instruction to its last. A reboot makes a new
/// one from the same outline, payload and devices. Belongs to the control loop's thread.
package final class Machine {
    private let vm: KVMVirtualMachine
    let memory: GuestMemory
    let vcpus: [VirtualCPU]
    let plugs: Plugs
    let platform: Platform

    /// Where the virtio devices are.
    enum Plugs {
        case pci(PCIBackplane)
        case mmio([VirtIOMMIOTransport], at: [VirtIORegisters])
    }

    init(
        _ vm: KVMVirtualMachine, memory: GuestMemory, vcpus: [VirtualCPU], plugs: Plugs,
        platform: Platform
    ) {
        self.vm = vm
        self.memory = memory
        self.vcpus = vcpus
        self.plugs = plugs
        self.platform = platform
    }

    /// Of the devices that there are at the moment.
    var transports: [any VirtIOTransport] {
        switch plugs {
        case .pci(let backplane): backplane.transports
        case .mmio(let transports, _): transports
        }
    }

    /// What there is at the moment.
    var tree: DeviceTree {
        let entries: [DeviceTree.Entry] =
            switch plugs {
            case .pci(let backplane): backplane.tree
            case .mmio(let transports, let places):
                zip(transports, places).map { .init(id: $0.id, connection: .mmio($1)) }
            }
        return DeviceTree(entries: entries, hasSerial: platform.uart != nil)
    }

    /// Lets the guest run, for the first time or again.
    package func start() throws(HostError) {
        for vcpu in vcpus { try vcpu.start() }
    }

    /// Ends all vCPU threads. The guest stands still afterwards.
    package func stopVCPUs() {
        // All are asked before any is waited for: one may be busy with what another one does.
        for vcpu in vcpus { vcpu.requestStop() }
        for vcpu in vcpus { vcpu.join() }
    }

    /// The clocks of a guest that stands still.
    func stopClock() -> GuestClock { GuestClock(vm, vcpus.map(\.cpu)) }

    /// Raises the non-maskable interrupt of all vCPUs, wherever they are.
    func injectNMI() {
        for vcpu in vcpus { vm.signal(.nonMaskable(apicID: vcpu.cpu.id)) }
    }

    /// Takes the devices back. When the I/O loop's thread has ended, and the vCPUs stand still.
    package func unplugDevices() {
        for transport in transports { transport.unplug() }
        if case .pci(let backplane) = plugs { backplane.unplugCards() }
        // The functions hold the memory bus, which holds the root that holds them.
        for root in platform.pci { root.detachAll() }
    }
}
