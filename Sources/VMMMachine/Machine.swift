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
    let vcpus: [VirtualCPU]
    let transports: [VirtIOPCITransport]
    let platform: Platform

    init(vcpus: [VirtualCPU], transports: [VirtIOPCITransport], platform: Platform) {
        self.vcpus = vcpus
        self.transports = transports
        self.platform = platform
    }

    /// Lets the guest run.
    package func start() throws(HostError) {
        for vcpu in vcpus { try vcpu.start() }
    }

    /// Ends all vCPU threads. The guest stands still afterwards.
    package func stopVCPUs() {
        // All are asked before any is waited for: one may be busy with what another one does.
        for vcpu in vcpus { vcpu.requestStop() }
        for vcpu in vcpus { vcpu.join() }
    }

    /// Takes the devices back. When the I/O loop's thread has ended, and the vCPUs stand still.
    package func unplugDevices() {
        for transport in transports { transport.unplug() }
        // The functions hold the memory bus, which holds the root that holds them.
        platform.pci.detachAll()
    }
}
