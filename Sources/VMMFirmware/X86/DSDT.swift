import VMMBase

/// The machine's devices as the guest's ACPI interpreter sees them: each part of the platform
/// contributes a list of terms.
struct DSDT {
    let configuration: ACPIConfiguration

    /// Revision 2 and later have 64-bit integers.
    private static let revision: UInt8 = 6

    var table: ACPITable {
        let body =
            hotplugController + configuration.pciSegments.map { hostBridge($0) } + motherboard
            + virtIO + serial + clock + sleep + events
        return ACPITable(signature: "DSDT", revision: Self.revision, body: AML.sequence(body))
    }

    /// PCI Firmware 3.3, 4.6.5: function 5 returning zero keeps the resources that the monitor has
    /// assigned; function 0 says that functions 0 and 5 exist.
    private static let keepBootConfiguration = AML.method(
        "_DSM", arguments: 4, serialized: false,
        [
            .if(
                .equal(.argument(0), .uuid("e5c937d0-3553-4d7a-9117-ea4d19c3434d")),
                [
                    .if(.equal(.argument(2), .integer(0)), [.return(.buffer([0x21]))]),
                    .if(.equal(.argument(2), .integer(5)), [.return(.integer(0))]),
                ]),
            .return(.buffer([0])),
        ])

    private func hostBridge(_ segment: PCISegment) -> AML {
        .device(
            Self.path(of: segment),
            [
                .name("_HID", .eisaID("PNP0A08")),
                .name("_CID", .eisaID("PNP0A03")),
                .name("_SEG", .integer(UInt64(segment.number))),
                .name("_UID", .integer(UInt64(segment.number))),
                .name("_BBN", .integer(0)),
                .name("_CCA", .integer(1)),
                .name("_CRS", .resources(Self.windows(of: segment))),
                Self.keepBootConfiguration,
            ] + slots(of: segment))
    }

    static func path(of segment: PCISegment) -> String {
        let digits = String(segment.number, radix: 16, uppercase: true)
        return "\\_SB_.PC" + (digits.count < 2 ? "0" : "") + digits
    }

    /// Segment 0 has the I/O ports but for those of configuration mechanism 1, which are the
    /// bridge's own.
    private static func windows(of segment: PCISegment) -> [AMLResource] {
        let ports: [AMLResource] = [
            .ports(0xcf8, count: 8), .portWindow(0...0xcf7), .portWindow(0xd00...0xffff),
        ]
        return [.busNumbers(0...0)] + (segment.number == 0 ? ports : [])
            + [.memoryWindow(segment.mmio32), .memoryWindow(segment.mmio64)]
    }

    /// Reserves the configuration space, without which Linux does not use it.
    private var motherboard: [AML] {
        guard !configuration.pciSegments.isEmpty else { return [] }
        let spaces = configuration.pciSegments.map { AMLResource.fixedMemory($0.ecam) }
        return [
            .device(
                "\\_SB_.MBRD",
                [
                    .name("_HID", .eisaID("PNP0C02")),
                    .name("_UID", .integer(0)),
                    .name("_CRS", .resources(spaces)),
                ])
        ]
    }

    /// LNRO0005 is what Linux takes for a virtio-mmio device.
    private var virtIO: [AML] {
        configuration.virtIODevices.enumerated().map { index, device in
            let digits = String(index, radix: 16, uppercase: true)
            return .device(
                "\\_SB_.VR" + (digits.count < 2 ? "0" : "") + digits,
                [
                    .name("_HID", .string("LNRO0005")),
                    .name("_UID", .integer(UInt64(index))),
                    .name("_CCA", .integer(1)),
                    .name(
                        "_CRS",
                        .resources([
                            .fixedMemory(device.registers), .interrupt(device.gsi, isLevel: false),
                        ])),
                ])
        }
    }

    private var serial: [AML] {
        guard configuration.hasSerial else { return [] }
        return [
            .device(
                "\\_SB_.COM1",
                [
                    .name("_HID", .eisaID("PNP0501")),
                    .name("_UID", .integer(0)),
                    .name("_DDN", .string("COM1")),
                    .name(
                        "_CRS",
                        .resources([.ports(0x3f8, count: 8), .interrupt(4, isLevel: false)])),
                ])
        ]
    }

    /// The CMOS clock. Without interrupt: alarms are not modelled.
    private var clock: [AML] {
        guard configuration.hasCMOSClock else { return [] }
        return [
            .device(
                "\\_SB_.RTC_",
                [
                    .name("_HID", .eisaID("PNP0B00")),
                    .name("_UID", .integer(0)),
                    .name("_CRS", .resources([.ports(0x70, count: 2)])),
                ])
        ]
    }

    /// Power off is sleep type 5 in the sleep control register.
    private var sleep: [AML] {
        [.name("\\_S5_", .package([.integer(5), .integer(5), .integer(0), .integer(0)]))]
    }

    /// The device that tells of events, and what it tells of: presses of the power button, and PCI
    /// devices that have come or are to go.
    private var events: [AML] {
        guard let eventDevice = configuration.eventDevice else { return [] }
        let button = "\\_SB_.PWRB"
        func when(_ event: UInt8, _ action: AML) -> AML {
            .if(.and(.local(0), .integer(UInt64(event))), [action])
        }
        let scan = configuration.hotplugRegisters == nil ? [] : [AML.call(Self.scanMethod)]
        return [
            .device(button, [.name("_HID", .eisaID("PNP0C0C")), .name("_UID", .integer(0))]),
            Self.eventDevice(
                eventDevice,
                events: [when(GenericEventDevice.powerButtonEvent, .notify(button, 0x80))]
                    + scan.map { when(GenericEventDevice.pciEvent, $0) }),
        ]
    }

    /// ACPI 6.5, 5.6.9: `_EVT` runs when the interrupt arrives; reading the register takes all
    /// pending events at once and lowers the interrupt line. `events` look at Local0.
    private static func eventDevice(_ device: GenericEventDevice, events: [AML]) -> AML {
        .device(
            "\\_SB_.GED_",
            [
                .name("_HID", .string("ACPI0013")),
                .name("_UID", .integer(0)),
                .name("_CRS", .resources([.interrupt(device.gsi, isLevel: true)])),
                .operationRegion(
                    "GDST", .systemMemory, offset: device.register.rawValue, length: 1),
                .field("GDST", .byte, [(name: "GDAT", bits: 8)]),
                .method(
                    "_EVT", arguments: 1, serialized: true,
                    [.store(.path("GDAT"), to: .local(0))] + events),
            ])
    }
}
