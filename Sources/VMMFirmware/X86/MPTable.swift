import VMMBase

/// The table of processors and interrupts for a guest that runs with `acpi=off`
/// (Intel MultiProcessor Specification 1.4, chapter 4).
package enum MPTable {
    /// An 8-bit APIC id field holds ids below 254: the next is the I/O APIC's at most, and 255
    /// means every APIC.
    private static let apicIDLimit: UInt32 = 254
    private static let specification: UInt8 = 4
    /// The ISA interrupts, each wired to the I/O APIC pin of its number.
    private static let isaInterrupts: ClosedRange<UInt8> = 0...15

    private enum EntryType {
        static let processor: UInt8 = 0
        static let bus: UInt8 = 1
        static let ioAPIC: UInt8 = 2
        static let ioInterrupt: UInt8 = 3
        static let localInterrupt: UInt8 = 4
    }

    /// The table for the vCPUs that are present at boot, the first vCPU first, at `address` or the
    /// next multiple of 16: Linux looks for it there up to 1 MiB. Nil when an APIC id is 254 or
    /// more, or when the table would pass 1 MiB.
    package static func build(apicIDs: [UInt32], at address: GuestAddress) -> GuestBlob? {
        let start = (address.rawValue &+ 15) & ~15
        guard
            (GuestMemoryLayout.smbios.rawValue..<GuestMemoryLayout.kernelFloor.rawValue)
                .contains(start), apicIDs.allSatisfy({ $0 < apicIDLimit })
        else { return nil }
        let tableAddress = UInt32(truncatingIfNeeded: start) + 16
        let bytes = floatingPointer(to: tableAddress) + configuration(apicIDs.map(UInt8.init))
        let room = GuestMemoryLayout.kernelFloor.rawValue - start
        guard UInt64(bytes.count) <= room else { return nil }
        return GuestBlob(address: GuestAddress(start), bytes: bytes)
    }

    private static func floatingPointer(to table: UInt32) -> [UInt8] {
        var pointer = ByteBuilder()
        pointer.append(ascii: "_MP_", count: 4)
        pointer.append(table)
        pointer.append(bytes: [1, specification, 0])  // length in paragraphs, version, checksum
        pointer.appendZeros(5)  // features: a configuration table follows, no IMCR
        pointer.patch(checksum(of: pointer.bytes), at: 10)
        return pointer.bytes
    }

    private static func configuration(_ apicIDs: [UInt8]) -> [UInt8] {
        let ioAPIC = (apicIDs.max() ?? 0) + 1
        let entries =
            apicIDs.enumerated().map { processor($1, isFirst: $0 == 0) }
            + [[EntryType.bus, 0] + Array("ISA   ".utf8), ioAPICEntry(ioAPIC)]
            + isaInterrupts.map { ioInterrupt($0, ioAPIC) } + localInterrupts
        let headerBytes = 44
        let body = entries.flatMap(\.self)
        var table = ByteBuilder()
        table.append(ascii: "PCMP", count: 4)
        table.append(UInt16(headerBytes + body.count))
        table.append(bytes: [specification, 0])
        table.append(ascii: "SWIFTLET", count: 8)
        table.append(ascii: "SWIFTLET VM", count: 12)
        table.appendZeros(6)  // no OEM table
        table.append(UInt16(entries.count))
        table.append(UInt32(truncatingIfNeeded: GuestMemoryLayout.localAPIC.rawValue))
        table.appendZeros(4)  // no extended entries
        table.append(bytes: body)
        table.patch(checksum(of: table.bytes), at: 7)
        return table.bytes
    }

    private static func processor(_ apicID: UInt8, isFirst: Bool) -> [UInt8] {
        let localAPICVersion: UInt8 = 0x14
        let enabled: UInt8 = 1
        let bootProcessor: UInt8 = 2
        var entry = ByteBuilder()
        entry.append(bytes: [EntryType.processor, apicID, localAPICVersion])
        entry.append(enabled | (isFirst ? bootProcessor : 0))
        entry.append(UInt32(0x600))  // signature: family 6
        entry.append(UInt32(0x201))  // features: FPU and APIC
        entry.appendZeros(8)
        return entry.bytes
    }

    private static func ioAPICEntry(_ id: UInt8) -> [UInt8] {
        let version: UInt8 = 0x11
        let enabled: UInt8 = 1
        var entry = ByteBuilder([EntryType.ioAPIC, id, version, enabled])
        entry.append(UInt32(truncatingIfNeeded: GuestMemoryLayout.ioapic.start.rawValue))
        return entry.bytes
    }

    /// A vectored interrupt of bus 0 with the bus's own polarity and trigger: high, edge.
    private static func ioInterrupt(_ line: UInt8, _ ioAPIC: UInt8) -> [UInt8] {
        [EntryType.ioInterrupt, 0, 0, 0, 0, line, ioAPIC, line]
    }

    /// LINT0 of the first processor takes the 8259 (type 3), LINT1 of all takes NMIs (type 1).
    private static let localInterrupts: [[UInt8]] = [
        [EntryType.localInterrupt, 3, 0, 0, 0, 0, 0, 0],
        [EntryType.localInterrupt, 1, 0, 0, 0, 0, 0xff, 1],
    ]
}
