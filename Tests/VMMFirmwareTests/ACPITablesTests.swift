import Testing
import VMMBase

@testable import VMMFirmware

@Suite("ACPITables")
struct ACPITablesTests {
    private static let base = 0xa0000

    private func configuration(
        processors: Int = 2, hasSerial: Bool = true, eventDevice: GenericEventDevice? = nil
    ) throws -> ACPIConfiguration {
        let layout = try GuestMemoryLayout(ramBytes: 1 << 30, physicalAddressBits: 40)
        let ecam = try #require(GuestMemoryLayout.ecam(segment: 0))
        return ACPIConfiguration(
            processors: (0..<UInt32(processors)).map {
                ACPIProcessor(apicID: $0 * 200, isEnabled: $0 == 0)
            },
            pciSegments: [
                PCISegment(
                    number: 0, ecam: ecam, mmio32: GuestMemoryLayout.mmio32Hole,
                    mmio64: layout.mmio64Window)
            ],
            hasSerial: hasSerial, eventDevice: eventDevice)
    }

    /// The table at a guest-physical address, cut out of the blob by its own length.
    private func table(_ blob: GuestBlob, at address: UInt64) -> [UInt8] {
        let start = Int(address) - Self.base
        return Array(blob.bytes[start..<start + Int(blob.bytes.little(start + 4) as UInt32)])
    }

    /// All tables by signature, found the way that a guest finds them.
    private func tables(_ blob: GuestBlob) -> [String: [UInt8]] {
        let root = table(blob, at: blob.bytes.little(24))
        let entries = stride(from: 36, to: root.count, by: 8).map { root.little($0) as UInt64 }
        let listed = entries.map { table(blob, at: $0) }
        let dsdt = table(blob, at: listed[0].little(140))
        let all = [root] + listed + [dsdt]
        return Dictionary(uniqueKeysWithValues: all.map { ($0.ascii(0..<4), $0) })
    }

    @Test("the root pointer is at 0xa0000 with both checksums right")
    func rootPointer() throws {
        let blob = try ACPITables.build(configuration())
        #expect(blob.address == GuestAddress(0xa0000))
        #expect(blob.bytes.ascii(0..<8) == "RSD PTR ")
        #expect(blob.bytes.ascii(9..<15) == "SWIFT ")
        #expect(blob.bytes[15] == 2)
        #expect(Array(blob.bytes[0..<20]).sum == 0)
        #expect(Array(blob.bytes[0..<36]).sum == 0)
        #expect(blob.bytes.little(20) as UInt32 == 36)
    }

    @Test("a guest finds five tables, each with its length, ids and checksum right")
    func allTables() throws {
        let tables = tables(try ACPITables.build(configuration()))
        #expect(Set(tables.keys) == ["XSDT", "FACP", "APIC", "MCFG", "DSDT"])
        for table in tables.values {
            #expect(table.sum == 0)
            #expect(table.ascii(10..<16) == "SWIFT ")
            #expect(table.ascii(16..<24) == "SWIFTLET")
        }
    }

    @Test("the tables are listed in the reference's order")
    func order() throws {
        let blob = try ACPITables.build(configuration())
        let root = table(blob, at: blob.bytes.little(24))
        let signatures = [36, 44, 52].map { table(blob, at: root.little($0)).ascii(0..<4) }
        #expect(signatures == ["FACP", "APIC", "MCFG"])
        #expect(root.count == 60)
    }

    @Test("the MADT has an x2APIC entry for each processor, an I/O APIC and IRQ 4")
    func madt() throws {
        let madt = try #require(tables(try ACPITables.build(configuration()))["APIC"])
        #expect(madt[8] == 5)
        #expect(madt.little(36) as UInt32 == 0xfee0_0000)
        #expect(madt.little(40) as UInt32 == 0)  // no 8259
        #expect(
            Array(madt[44...])
                == [9, 16, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]  // id 0, enabled, UID 0
                + [9, 16, 0, 0, 200, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]  // online capable, UID 1
                + [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]
                + [2, 10, 0, 4, 4, 0, 0, 0, 0, 0])
    }

    @Test("the MCFG has bus 0 of the segment")
    func mcfg() throws {
        let mcfg = try #require(tables(try ACPITables.build(configuration()))["MCFG"])
        #expect(mcfg.count == 60)
        #expect(mcfg.little(44) as UInt64 == 0xe800_0000)
        #expect(Array(mcfg[52...]) == [0, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test("the tables of 4096 vCPUs fit, and those of 30000 are refused")
    func manyProcessors() throws {
        #expect(try ACPITables.build(configuration(processors: 4096)).bytes.count < 0x50000)
        // 16 bytes each are 480,000; between 0xa0000 and 0xf0000 there are 327,680.
        #expect {
            try ACPITables.build(configuration(processors: 30000))
        } throws: { error in
            "\(error)".hasSuffix("bytes, the guest has room for 327680")
        }
    }
}
