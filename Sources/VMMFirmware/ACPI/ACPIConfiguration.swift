import VMMBase

/// A vCPU that exists or may be plugged in, for the ACPI tables.
package struct ACPIProcessor: Hashable, Sendable {
    /// Its local APIC's 32-bit id.
    package let apicID: UInt32
    /// Present at boot; false for one that can be plugged in later.
    package let isEnabled: Bool

    /// The order in the configuration gives the processor's ACPI UID.
    package init(apicID: UInt32, isEnabled: Bool) {
        self.apicID = apicID
        self.isEnabled = isEnabled
    }
}

/// One PCI host bridge with the windows for its functions' BARs.
package struct PCISegment: Hashable, Sendable {
    /// The segment group number; 0 for the first.
    package let number: UInt16
    /// Configuration space of bus 0, below 4 GiB.
    package let ecam: GuestRange
    /// The window for 32-bit BARs.
    package let mmio32: GuestRange
    /// The window for 64-bit BARs.
    package let mmio64: GuestRange

    /// Windows of different segments must not overlap.
    package init(number: UInt16, ecam: GuestRange, mmio32: GuestRange, mmio64: GuestRange) {
        self.number = number
        self.ecam = ecam
        self.mmio32 = mmio32
        self.mmio64 = mmio64
    }
}

/// The generic event device: a one-byte register of pending events and its interrupt.
package struct GenericEventDevice: Hashable, Sendable {
    /// Guest-physical address of the register, which reading clears.
    package let register: GuestAddress
    /// The level-triggered interrupt, active high.
    package let gsi: UInt32

    /// The bit that says that PCI devices have come or are to go
    /// (`reference/cloud-hypervisor.md` 4.7).
    package static let pciEvent: UInt8 = 4
    /// The bit that says the power button was pressed.
    package static let powerButtonEvent: UInt8 = 8

    /// The first I/O APIC pin after those set aside for PCI is 13.
    package init(register: GuestAddress, gsi: UInt32 = 13) {
        self.register = register
        self.gsi = gsi
    }
}

/// The registers of a virtio device that is on no bus.
package struct VirtIORegisters: Hashable, Sendable {
    /// Its page, below 4 GiB.
    package let registers: GuestRange
    /// Its edge-triggered interrupt, active high.
    package let gsi: UInt32

    /// No two devices share a page or an interrupt.
    package init(registers: GuestRange, gsi: UInt32) {
        self.registers = registers
        self.gsi = gsi
    }
}

/// What the ACPI tables tell the guest about its machine.
package struct ACPIConfiguration: Hashable, Sendable {
    /// Every vCPU that may ever exist, the first vCPU first.
    package var processors: [ACPIProcessor]
    /// Only segment 0 has I/O ports.
    package var pciSegments: [PCISegment]
    /// In the order in which the guest is to find them.
    package var virtIODevices: [VirtIORegisters]
    /// A 16550 at port 0x3f8, IRQ 4.
    package var hasSerial: Bool
    /// A CMOS clock at port 0x70.
    package var hasCMOSClock: Bool
    /// Where the power button's presses arrive; nil leaves out the button as well.
    package var eventDevice: GenericEventDevice?
    /// The registers by which PCI devices come and go, of which the event device tells; nil where
    /// they do not.
    package var hotplugRegisters: GuestAddress? = nil

    /// A machine with these parts.
    package init(
        processors: [ACPIProcessor], pciSegments: [PCISegment],
        virtIODevices: [VirtIORegisters] = [], hasSerial: Bool, hasCMOSClock: Bool = true,
        eventDevice: GenericEventDevice?
    ) {
        self.processors = processors
        self.pciSegments = pciSegments
        self.virtIODevices = virtIODevices
        self.hasSerial = hasSerial
        self.hasCMOSClock = hasCMOSClock
        self.eventDevice = eventDevice
    }
}
