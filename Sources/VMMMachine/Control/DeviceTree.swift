import VMMBase
import VMMBus
import VMMDevices
import VMMFirmware

/// Which devices a machine has and what they occupy, as `vm.info` tells it. What a guest moves is
/// looked up when somebody asks. Any thread.
struct DeviceTree: Sendable {
    /// A virtio device, and how it is connected.
    struct Entry: Sendable {
        enum Connection: Sendable {
            case pci(PCIAddress, any PCIFunction, isVirtIO: Bool)
            case mmio(VirtIORegisters)
        }

        let id: String
        let connection: Connection
    }

    var entries: [Entry] = []
    var hasSerial = false

    /// Nodes by their names, in Cloud Hypervisor's form.
    var json: JSONValue {
        var nodes = entries.flatMap { Self.nodes(of: $0) }
        if hasSerial {
            nodes.append(
                Self.node(
                    "__serial",
                    [
                        Self.range("PioAddressRange", base: 0x3f8, size: 8),
                        ["LegacyIrq": 4],
                    ]))
        }
        let ioapic = GuestMemoryLayout.ioapic
        nodes.append(
            Self.node(
                "__ioapic",
                [
                    Self.range(
                        "MmioAddressRange", base: ioapic.start.rawValue, size: ioapic.count)
                ]))
        return .object(nodes)
    }

    /// The device, and the transport that it hangs on.
    private static func nodes(of entry: Entry) -> [JSONValue.Member] {
        let transport: JSONValue.Member
        switch entry.connection {
        case .pci(let address, let function, let isVirtIO):
            let bars = function.registers.map { [bar($0)] } ?? []
            guard isVirtIO else { return [node(entry.id, bars, address: address)] }
            transport = node(
                "_virtio-pci-\(entry.id)", bars, children: [entry.id], address: address)
        case .mmio(let place):
            transport = node(
                "_virtio-mmio-\(entry.id)",
                [
                    range(
                        "MmioAddressRange", base: place.registers.start.rawValue,
                        size: place.registers.count),
                    ["LegacyIrq": .number("\(place.gsi)")],
                ], children: [entry.id])
        }
        return [transport, node(entry.id, [], parent: transport.name)]
    }

    private static func node(
        _ id: String, _ resources: [JSONValue], parent: String? = nil, children: [String] = [],
        address: PCIAddress? = nil
    ) -> JSONValue.Member {
        .init(
            id,
            [
                "id": .string(id), "resources": .array(resources),
                "parent": parent.map { .string($0) } ?? .null,
                "children": .array(children.map { .string($0) }),
                "pci_bdf": address.map { .string($0.description) } ?? .null,
            ])
    }

    private static func range(_ kind: String, base: UInt64, size: UInt64) -> JSONValue {
        .object([
            .init(kind, ["base": .number("\(base)"), "size": .number("\(size)")])
        ])
    }

    private static func bar(_ place: GuestRange) -> JSONValue {
        [
            "PciBar": [
                "index": 0, "base": .number("\(place.start.rawValue)"),
                "size": .number("\(place.count)"), "type_": "Mmio64", "prefetchable": false,
            ]
        ]
    }
}
