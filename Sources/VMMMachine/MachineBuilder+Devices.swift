import Synchronization
import VMMBase
import VMMBus
import VMMDevices
import VMMFirmware
import VMMHost
import VMMVirtIO

/// Which devices a guest has set up in its life: it may do so again and again.
private final class Begun: Sendable {
    private let ids = Mutex<Set<String>>([])

    func isFirst(_ id: String) -> Bool { ids.withLock { $0.insert(id).inserted } }
}

/// Where the virtio devices are, and how the guest hears of them.
extension MachineBuilder {
    func plug(
        _ platform: Platform, _ memory: GuestMemory, _ router: InterruptRouter
    ) throws -> Machine.Plugs {
        var plug = TransportPlug(
            memoryBus: platform.memory, doorbells: router, loop: loop, memory: memory,
            limiter: guestLog.devices, features: outline.ring == .packed ? Feature.packedRing : 0)
        let begun = Begun()
        plug.report = { [events] id, change in
            let event = change == .activated ? EventMonitor.Event.activated : .reset
            events?.tell(.virtIODevice, event, [("id", id)])
            // A driver's first set-up is start-up once more, of other code.
            if change == .activated, begun.isFirst(id) { ProcessMemory.dropStartupCode() }
        }
        return switch outline.transport {
        case .pci: .pci(try plugPCI(platform, plug, router))
        case .mmio: .mmio(try plugMMIO(plug, router), at: try registerPlaces())
        }
    }

    private func plugPCI(
        _ platform: Platform, _ plug: TransportPlug, _ router: InterruptRouter
    ) throws -> PCIBackplane {
        let backplane = PCIBackplane(
            outline.segments, roots: platform.pci, plug: plug, interrupts: router)
        // Places that users asked for first, so that nobody else takes them.
        for entry in devices.virtIO.filter({ $0.place.device != nil })
            + devices.virtIO.filter({ $0.place.device == nil })
        {
            let address = try backplane.plug(entry)
            devices.remember(address, of: entry.id)
            Log.debug("\(entry.id) at \(address)")
        }
        for card in devices.cards { try backplane.plug(card) }
        return backplane
    }

    private func plugMMIO(
        _ plug: TransportPlug, _ router: InterruptRouter
    ) throws -> [VirtIOMMIOTransport] {
        try zip(devices.virtIO, registerPlaces()).map { entry, place in
            Log.debug("\(entry.id) at \(place.registers.start), interrupt \(place.gsi)")
            return try VirtIOMMIOTransport(
                entry.device, plug: plug,
                interrupt: router.makeEdgeInterrupt(pin: Int(place.gsi)),
                address: place.registers.start)
        }
    }

    /// Where each device's registers are and which pin it has, without PCI. The registers follow
    /// the page that Firecracker's boot timer has (`reference/firecracker.md`).
    func registerPlaces() throws(ConfigurationProblem) -> [VirtIORegisters] {
        guard outline.transport == .mmio else { return [] }
        let pins = Platform.virtIOPins(hasACPI: outline.hasACPI)
        guard devices.virtIO.count <= pins.count else {
            let reason = "\(devices.virtIO.count) devices need an interrupt each, and there are"
            throw ConfigurationProblem(
                option: "\(PlatformSpec.option) transport", value: "mmio",
                reason: "\(reason) \(pins.count)" + (outline.hasACPI ? "" : " with acpi=off"))
        }
        return zip(devices.virtIO.indices, pins).map { index, pin in
            VirtIORegisters(
                registers: GuestMemoryLayout.virtIORegisters(index), gsi: UInt32(pin))
        }
    }

    /// The user's command line; a guest that does not look at ACPI learns from it where the
    /// devices are. One that looks at both would see each device twice.
    func commandLine() throws(ConfigurationProblem) -> String {
        let places = try registerPlaces()
        guard !places.isEmpty, !outline.hasACPI else { return outline.commandLine }
        let words = places.map { place in
            let address = String(place.registers.start.rawValue, radix: 16)
            return "virtio_mmio.device=4K@0x\(address):\(place.gsi)"
        }
        return Self.inserting(words, into: outline.commandLine)
    }

    /// What follows `--` on a command line is not the kernel's, but init's.
    static func inserting(_ words: [String], into commandLine: String) -> String {
        let parts = commandLine.split(separator: " ")
        let end = parts.firstIndex(of: "--") ?? parts.endIndex
        return (parts[..<end].map(String.init) + words + parts[end...].map(String.init))
            .joined(separator: " ")
    }
}
