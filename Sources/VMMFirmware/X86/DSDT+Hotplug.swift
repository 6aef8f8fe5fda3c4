import VMMBase

/// PCI devices that come and go (`reference/cloud-hypervisor.md` 4.6 and 4.7). The event device
/// has `PSCN` look into the controller's registers for each segment, and each device number that
/// has a bit there is told by a notification: 1, look what is there; 3, let go. A guest that has
/// let go of a device runs its `_EJ0`, which writes to the controller.
extension DSDT {
    private static let controller = "\\_SB_.PHPR"
    private static let lock = controller + ".BLCK"
    private static let segmentRegister = controller + ".PSEG"
    /// Looks for devices that have come or are to go, on all segments.
    static let scanMethod = controller + ".PSCN"
    private static let deviceNumbers: UInt64 = 32
    private static let deviceCheck: UInt64 = 1
    private static let ejectRequest: UInt64 = 3

    /// The registers serve one segment at a time, so whoever selects one holds the lock.
    var hotplugController: [AML] {
        guard let registers = configuration.hotplugRegisters else { return [] }
        return [
            .device(
                Self.controller,
                [
                    .name("_HID", .eisaID("PNP0A06")),
                    .name("_UID", .string("PCI hotplug")),
                    .mutex("BLCK"),
                    .operationRegion(
                        "PCST", .systemMemory, offset: registers.rawValue, length: 16),
                    .field(
                        "PCST", .doubleWord,
                        ["PCIU", "PCID", "B0EJ", "PSEG"].map { (name: $0, bits: 32) }),
                    // PCEJ(device number, segment)
                    .method(
                        "PCEJ", arguments: 2, serialized: true,
                        [
                            .acquire("BLCK"), .store(.argument(1), to: .path("PSEG")),
                            .store(
                                .shiftLeft(.integer(1), by: .argument(0)), to: .path("B0EJ")),
                            .release("BLCK"),
                        ]),
                    .method(
                        "PSCN", arguments: 0, serialized: true,
                        configuration.pciSegments.map { .call(Self.path(of: $0) + ".PCNT") }),
                ])
        ]
    }

    /// A device for each number that a PCI device can have, and how they are told. On segment 0,
    /// number 0 is the host bridge.
    func slots(of segment: PCISegment) -> [AML] {
        guard configuration.hotplugRegisters != nil else { return [] }
        let numbers = (segment.number == 0 ? 1 : 0)..<Self.deviceNumbers
        let slots = numbers.map { number in
            AML.device(
                Self.slot(number),
                [
                    .name("_SUN", .integer(number)),
                    .name("_ADR", .integer(number << 16)),
                    .method(
                        "_EJ0", arguments: 1, serialized: false,
                        [
                            .call(
                                Self.controller + ".PCEJ", .integer(number),
                                .integer(UInt64(segment.number)))
                        ]),
                ])
        }
        return slots + [
            // DVNT(device numbers as bits, notification)
            .method(
                "DVNT", arguments: 2, serialized: true,
                numbers.map { number in
                    .if(
                        .and(.argument(0), .integer(1 << number)),
                        [.notify(Self.slot(number), .argument(1))])
                }),
            .method("PCNT", arguments: 0, serialized: true, Self.look(at: segment)),
        ]
    }

    private static func look(at segment: PCISegment) -> [AML] {
        [
            .acquire(lock),
            .store(.integer(UInt64(segment.number)), to: .path(segmentRegister)),
            .store(.path(controller + ".PCIU"), to: .local(0)),
            .store(.path(controller + ".PCID"), to: .local(1)),
            .release(lock),
            .call("DVNT", .local(0), .integer(deviceCheck)),
            .call("DVNT", .local(1), .integer(ejectRequest)),
        ]
    }

    private static func slot(_ number: UInt64) -> String {
        "S" + String(repeating: "0", count: number < 10 ? 2 : 1) + "\(number)"
    }
}
