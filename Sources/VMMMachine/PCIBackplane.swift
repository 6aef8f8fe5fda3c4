import VMMBase
import VMMBus
import VMMDevices
import VMMFirmware
import VMMVirtIO

/// The PCI buses of one life of the machine: which device is where, and which addresses it has.
/// Belongs to the control loop's thread, and is used while the I/O loop stands still.
final class PCIBackplane {
    private struct Entry {
        let id: String
        let function: any PCIFunction
        /// nil for a function that is no virtio device.
        let transport: VirtIOPCITransport?
        let address: PCIAddress
        /// Where its registers were put at first; the guest may have moved them since.
        let registers: GuestRange
    }

    private let roots: [PCIRoot]
    private let socket: TransportPlug
    private let interrupts: any MessageInterruptSource
    /// The 64-bit window of each segment.
    private var windows: [AddressAllocator]
    private var entries: [Entry] = []

    /// One root for each segment. All that is plugged in is connected to `plug`.
    init(
        _ segments: [PCISegment], roots: [PCIRoot], plug: TransportPlug,
        interrupts: any MessageInterruptSource
    ) {
        precondition(segments.count == roots.count, "each segment has its bridge")
        self.roots = roots
        socket = plug
        self.interrupts = interrupts
        windows = segments.map { AddressAllocator($0.mmio64) }
    }

    /// Of all virtio devices that are plugged in.
    var transports: [any VirtIOTransport] { entries.compactMap(\.transport) }

    /// All that is plugged in, and where.
    var tree: [DeviceTree.Entry] {
        entries.map {
            .init(
                id: $0.id, connection: .pci($0.address, $0.function, isVirtIO: $0.transport != nil))
        }
    }

    /// Where a device is; nil when it is not plugged in.
    func address(of id: String) -> PCIAddress? {
        entries.first { $0.id == id }?.address
    }

    /// The device at a place.
    func device(at address: PCIAddress) -> String? {
        entries.first { $0.address == address }?.id
    }

    /// Whether somebody has this place, or had it and the guest has not let go of it yet.
    func isTaken(segment: UInt16, device: UInt8) -> Bool {
        roots.indices.contains(Int(segment)) && roots[Int(segment)].isTaken(device: device)
    }

    /// Puts a device where it wants to be, or at the lowest number that is free.
    func plug(_ device: DeviceSet.VirtIO) throws -> PCIAddress {
        let segment = Int(device.place.segment ?? 0)
        let size = VirtIOPCITransport.barByteCount
        guard windows.indices.contains(segment),
            let registers = windows[segment].allocate(count: size, alignment: size)
        else {
            throw MachineError(
                "no room on PCI segment \(segment) for the registers of \(device.id)")
        }
        do {
            let transport = try VirtIOPCITransport(
                device.device, plug: socket, interrupts: interrupts, barAddress: registers.start)
            guard let address = roots[segment].attach(transport, device: device.place.device)
            else { throw refusal(of: device, segment) }
            entries.append(
                Entry(
                    id: device.id, function: transport, transport: transport, address: address,
                    registers: registers))
            return address
        } catch {
            windows[segment].release(registers)
            throw error
        }
    }

    /// Puts a function that is no virtio device at the lowest free number of segment 0.
    func plug(_ card: DeviceSet.Card) throws {
        guard let root = roots.first,
            let registers = windows[0].allocate(count: card.byteCount, alignment: card.byteCount)
        else { throw MachineError("no room on PCI segment 0 for the registers of \(card.id)") }
        let function = card.make(socket.memoryBus, registers.start)
        guard let address = root.attach(function) else {
            windows[0].release(registers)
            throw MachineError("no place for \(card.id): PCI segment 0 is full")
        }
        Log.debug("\(card.id) at \(address)")
        entries.append(
            Entry(
                id: card.id, function: function, transport: nil, address: address,
                registers: registers))
    }

    /// Ends what is no virtio device. When the vCPUs stand still for good.
    func unplugCards() {
        for case let card as any PCICard in entries.map(\.function) { card.unplug() }
    }

    private func refusal(of device: DeviceSet.VirtIO, _ segment: Int) -> MachineError {
        MachineError(
            device.place.device.map {
                "device number \($0) of PCI segment \(segment), which \(device.id) wants, is taken"
            } ?? "no place for \(device.id): PCI segment \(segment) is full")
    }

    /// Takes a device from a guest that goes on. Its place and its addresses are free again.
    func remove(_ id: String) {
        guard let index = entries.firstIndex(where: { $0.id == id }),
            let transport = entries[index].transport
        else { return }
        let entry = entries.remove(at: index)
        let segment = Int(entry.address.segment)
        roots[segment].hide(device: entry.address.device)
        transport.remove()
        roots[segment].detach(device: entry.address.device)
        windows[segment].release(entry.registers)
    }
}
