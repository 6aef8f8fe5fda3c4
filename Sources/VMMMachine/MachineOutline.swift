import VMMDevices
import VMMFirmware

/// A checked configuration: nothing optional that the builder would have to decide, every device
/// named. Made by `MachineConfiguration.validate` alone.
package struct MachineOutline: Sendable {
    package struct Device: Sendable {
        package let id: String
        package let spec: any DeviceSpec
    }

    package let kernel: String
    package let initramfs: String?
    package let commandLine: String
    package let bootVCPUs: Int
    package let maximumVCPUs: Int
    package let topology: CPUTopology
    package let allowsNesting: Bool
    package let layout: GuestMemoryLayout
    package let usesHugePages: Bool
    /// In catalogue order, which is the order of PCI places.
    package let devices: [Device]
}
