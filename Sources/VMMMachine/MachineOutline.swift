import VMMDevices
import VMMFirmware

/// A checked configuration: nothing optional that the builder would have to decide, every device
/// named. Made by `MachineConfiguration.validate` alone.
package struct MachineOutline: Sendable {
    package struct Device: Sendable {
        package let id: String
        package let spec: any DeviceSpec
        /// Which one of its kind, in the order in which the user gave them.
        package let index: Int
    }

    package let kernel: String
    package let initramfs: String?
    package let commandLine: String
    package let bootVCPUs: Int
    package let maximumVCPUs: Int
    package let topology: CPUTopology
    package let allowsNesting: Bool
    package let coreScheduling: CPUSpec.CoreScheduling
    package let layout: GuestMemoryLayout
    package let usesHugePages: Bool
    /// In catalogue order, which is the order of PCI places.
    package let devices: [Device]
    package let rateLimitGroups: [RateLimitGroup]
    package let transport: PlatformSpec.Transport
    /// None without PCI.
    package let segments: [PCISegment]
    package let ring: PlatformSpec.Ring

    /// The kernel was not told to leave the ACPI tables alone.
    package var hasACPI: Bool {
        !commandLine.split(whereSeparator: \.isWhitespace).contains("acpi=off")
    }

    /// Whether the guest may have to reach PCI configuration space through ports 0xcf8 to 0xcff.
    /// Linux that finds them uses them, at two exits an access where ECAM costs one; so they are
    /// there for a kernel that was told not to look for ECAM (decision 0014).
    package var needsConfigurationPorts: Bool {
        commandLine.split(whereSeparator: \.isWhitespace).contains { word in
            guard word.hasPrefix("pci=") else { return word == "acpi=off" }
            return word.dropFirst(4).split(separator: ",").contains {
                ["conf1", "nommconf", "noacpi"].contains($0)
            }
        }
    }
}
