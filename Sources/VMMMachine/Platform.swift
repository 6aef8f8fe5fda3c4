import VMMBase
import VMMBus
import VMMDevices
import VMMFirmware
import VMMHost

/// The chips that every machine has, on their buses.
final class Platform: Sendable {
    let ports = Bus()
    let memory = Bus()
    /// The bridges, by the numbers of their segments.
    let pci: [PCIRoot]
    /// There where the machine has PCI.
    let hotplug: PCIHotplugController?
    let ioapic: IOAPIC
    let eventDevice: VMMDevices.GenericEventDevice
    let uart: UART16550?

    /// What the platform is made for.
    struct Parts {
        let layout: GuestMemoryLayout
        let router: InterruptRouter
        let segments: [PCISegment]
        let hasConfigurationPorts: Bool
        let serial: (any ByteChannel)?
        let debugConsole: (channel: any ByteChannel, port: UInt16)?
        let loop: EventLoop
        let clock: any HostClock
        let guestLog: GuestLog
        let notify: @Sendable (MachineEvent) -> Void
    }

    private static let serialPort: UInt64 = 0x3f8
    private static let serialPin = 4
    private static let eventPin = 13

    /// The pins that virtio devices without PCI can have, in the order in which they are taken:
    /// none that a PC's own devices have (timer, keyboard, serial ports, clock) or the platform's.
    /// Without ACPI a guest knows of the 16 ISA interrupts alone, from the MP table.
    static func virtIOPins(hasACPI: Bool) -> [Int] {
        let isa = [5, 6, 7, 9, 10, 11, 12, 14, 15]
        return hasACPI ? isa + Array(16..<IOAPIC.pinCount) : isa
    }

    init(_ parts: Parts) throws {
        let notify = parts.notify
        let ioapic = IOAPIC(sink: parts.router)
        self.ioapic = ioapic
        eventDevice = VMMDevices.GenericEventDevice(line: ioapic.line(Self.eventPin))
        uart = parts.serial.map {
            UART16550(line: ioapic.line(Self.serialPin), channel: $0, loop: parts.loop)
        }
        let pci = parts.segments.map { PCIRoot(segment: $0.number) }
        self.pci = pci
        hotplug =
            pci.isEmpty
            ? nil
            : PCIHotplugController(segmentCount: pci.count) { address in
                // Gone for the guest before its next instruction; the rest can wait.
                pci[Int(address.segment)].hide(device: address.device)
                notify(.ejected(address))
            }
        try memory.attach(
            ioapic, at: GuestMemoryLayout.ioapic.start.rawValue,
            count: GuestMemoryLayout.ioapic.count)
        for (root, segment) in zip(pci, parts.segments) {
            try memory.attach(
                root.ecam, at: segment.ecam.start.rawValue, count: PCIRoot.ecamByteCount)
        }
        if let hotplug {
            try memory.attach(
                hotplug, at: parts.layout.registers(of: .pciHotplug).rawValue,
                count: PCIHotplugController.byteCount)
        }
        try memory.attach(
            eventDevice, at: parts.layout.registers(of: .genericEvent).rawValue, count: 1)
        try attachPorts(parts, reset: { notify(.reset) }, powerOff: { notify(.powerOff) })
    }

    private func attachPorts(
        _ parts: Parts, reset: @escaping @Sendable () -> Void,
        powerOff: @escaping @Sendable () -> Void
    ) throws {
        if let uart { try ports.attach(uart, at: Self.serialPort, count: 8) }
        try ports.attach(I8042(reset: reset), at: 0x61, count: 4)
        let low = min(parts.layout.ramBytes, GuestMemoryLayout.mmio32Hole.start.rawValue)
        try ports.attach(
            CMOS(
                clock: parts.clock, memoryBelow4G: low,
                memoryAbove4G: parts.layout.ramBytes - low, reset: reset),
            at: 0x70, count: 2)
        try ports.attach(
            DebugPort(clock: parts.clock, limiter: parts.guestLog.debugPort), at: 0x80, count: 1)
        try ports.attach(
            ACPIPowerRegisters(reset: reset, powerOff: powerOff), at: 0x600, count: 8)
        try ports.attach(ACPITimer(clock: parts.clock), at: 0x608, count: 4)
        if let root = pci.first, parts.hasConfigurationPorts {
            try ports.attach(root.configurationPorts, at: 0xcf8, count: 8)
        }
        // Last, for the user chooses its port: it is the one to blame when two want the same.
        guard let (channel, port) = parts.debugConsole else { return }
        do {
            try ports.attach(DebugConsole(channel: channel), at: UInt64(port), count: 1)
        } catch {
            throw ConfigurationProblem(
                option: "--debug-console iobase", value: "0x" + String(port, radix: 16),
                reason: "another device has this port")
        }
    }
}
