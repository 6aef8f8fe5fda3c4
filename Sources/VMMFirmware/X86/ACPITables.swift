import VMMBase

/// The ACPI tables of a hardware-reduced x86-64 machine (`reference/cloud-hypervisor.md` 4.6;
/// layouts from ACPI 6.5, chapter 5). A guest finds no PIT, no PIC and no SCI through them.
package enum ACPITables {
    /// ACPI ends where the SMBIOS structures begin.
    private static let room = Int(
        GuestMemoryLayout.smbios.rawValue - GuestMemoryLayout.rsdp.rawValue)
    private static let alignment = 16

    /// All tables in one piece at `GuestMemoryLayout.rsdp`: RSDP, DSDT, FADT, MADT,
    /// MCFG (where there is PCI), XSDT.
    package static func build(
        _ configuration: ACPIConfiguration
    ) throws(FirmwareTableError) -> GuestBlob {
        var memory = ByteBuilder()
        memory.appendZeros(rsdpBytes)
        func place(_ table: ACPITable) -> UInt64 {
            memory.align(to: alignment)
            let address = GuestMemoryLayout.rsdp.rawValue + UInt64(memory.count)
            memory.append(bytes: table.bytes)
            return address
        }
        let dsdt = place(DSDT(configuration: configuration).table)
        var entries = [
            place(FADT(dsdt: dsdt, hasCMOSClock: configuration.hasCMOSClock).table),
            place(madt(configuration.processors)),
        ]
        if !configuration.pciSegments.isEmpty {
            entries.append(place(mcfg(configuration.pciSegments)))
        }
        let root = place(xsdt(entries))
        guard memory.count <= room else {
            throw .tooLarge(table: "ACPI tables", bytes: memory.count, limit: room)
        }
        let bytes = rsdp(xsdt: root) + memory.bytes.dropFirst(rsdpBytes)
        return GuestBlob(address: GuestMemoryLayout.rsdp, bytes: bytes)
    }

    private static let rsdpBytes = 36

    /// The root pointer (5.2.5.3): a checksum over the first 20 bytes and one over all.
    private static func rsdp(xsdt: UInt64) -> [UInt8] {
        let revision: UInt8 = 2
        var pointer = ByteBuilder()
        pointer.append(ascii: "RSD PTR ", count: 8)
        pointer.append(UInt8(0))
        pointer.append(ascii: "SWIFT", count: 6)
        pointer.append(revision)
        pointer.append(UInt32(0))  // no RSDT
        pointer.patch(checksum(of: pointer.bytes), at: 8)
        pointer.append(UInt32(rsdpBytes))
        pointer.append(xsdt)
        pointer.appendZeros(4)
        pointer.patch(checksum(of: pointer.bytes), at: 32)
        return pointer.bytes
    }

    /// The list of tables (5.2.8).
    private static func xsdt(_ entries: [UInt64]) -> ACPITable {
        var body = ByteBuilder()
        for entry in entries { body.append(entry) }
        return ACPITable(signature: "XSDT", revision: 1, body: body.bytes)
    }

    /// The interrupt controllers (5.2.12). Every processor has an x2APIC entry, which Linux takes
    /// for ids below 255 too when there is no entry of the older kind.
    private static func madt(_ processors: [ACPIProcessor]) -> ACPITable {
        var body = ByteBuilder()
        body.append(UInt32(truncatingIfNeeded: GuestMemoryLayout.localAPIC.rawValue))
        body.append(UInt32(0))  // flags: no 8259
        for (uid, processor) in processors.enumerated() {
            body.append(bytes: [9, 16, 0, 0])
            body.append(processor.apicID)
            body.append(UInt32(processor.isEnabled ? 1 : 2))  // enabled, or online capable
            body.append(UInt32(truncatingIfNeeded: uid))
        }
        body.append(bytes: [1, 12, 0, 0])  // I/O APIC 0
        body.append(UInt32(truncatingIfNeeded: GuestMemoryLayout.ioapic.start.rawValue))
        body.append(UInt32(0))  // its first GSI
        let serialIRQ: UInt8 = 4
        body.append(bytes: [2, 10, 0, serialIRQ])  // source override on the ISA bus
        body.append(UInt32(serialIRQ))
        body.append(UInt16(0))  // polarity and trigger as the bus has them: high, edge
        return ACPITable(signature: "APIC", revision: 5, body: body.bytes)
    }

    /// The configuration spaces (PCI Firmware 3.3, 4.1.2): bus 0 of each segment.
    private static func mcfg(_ segments: [PCISegment]) -> ACPITable {
        var body = ByteBuilder()
        body.appendZeros(8)
        for segment in segments {
            body.append(segment.ecam.start.rawValue)
            body.append(segment.number)
            body.append(bytes: [0, 0])  // first and last bus
            body.appendZeros(4)
        }
        return ACPITable(signature: "MCFG", revision: 1, body: body.bytes)
    }
}
