import Foundation
import Testing
import VMMBase

@testable import VMMFirmware

@Suite("DSDT")
struct DSDTTests {
    private func body(
        segments: [UInt16] = [0], virtIODevices: [VirtIORegisters] = [], hasSerial: Bool = false,
        eventDevice: GenericEventDevice? = nil, hotplugRegisters: GuestAddress? = nil
    ) throws -> [UInt8] {
        let window = try #require(GuestRange(start: GuestAddress(1 << 32), count: 1 << 32))
        var configuration = ACPIConfiguration(
            processors: [],
            pciSegments: try segments.map { number in
                PCISegment(
                    number: number, ecam: try #require(GuestMemoryLayout.ecam(segment: number)),
                    mmio32: GuestMemoryLayout.mmio32Hole, mmio64: window)
            },
            virtIODevices: virtIODevices, hasSerial: hasSerial, eventDevice: eventDevice)
        configuration.hotplugRegisters = hotplugRegisters
        return DSDT(configuration: configuration).table.bytes
    }

    private func contains(_ haystack: [UInt8], _ needle: [UInt8]) -> Bool {
        haystack.indices.contains { haystack[$0...].starts(with: needle) }
    }

    @Test("the sleep package turns the machine off with type 5")
    func sleep() throws {
        let sleep: [UInt8] = [0x12, 0x08, 0x04, 0x0a, 5, 0x0a, 5, 0, 0]
        #expect(contains(try body(), [0x08, 0x5c] + Array("_S5_".utf8) + sleep))
        #expect(try body()[8] == 6)
    }

    @Test("the serial port is there only when the machine has one")
    func serial() throws {
        let device = Array("COM1".utf8)
        #expect(contains(try body(hasSerial: true), device))
        #expect(!contains(try body(hasSerial: false), device))
    }

    @Test("each virtio device that is on no bus has its page and its edge-triggered interrupt")
    func virtIODevices() throws {
        let devices = [5, 23].enumerated().map { index, gsi in
            VirtIORegisters(
                registers: GuestMemoryLayout.virtIORegisters(index), gsi: UInt32(gsi))
        }
        let table = try body(segments: [], virtIODevices: devices)
        for device in devices {
            #expect(contains(table, AMLResource.fixedMemory(device.registers).bytes))
            #expect(contains(table, AMLResource.interrupt(device.gsi, isLevel: false).bytes))
        }
        #expect(contains(table, Array("VR01".utf8)) && contains(table, Array("LNRO0005".utf8)))
        #expect(devices.map(\.registers.start.rawValue) == [0xc000_1000, 0xc000_2000])
        #expect(!contains(table, Array("MBRD".utf8)) && !contains(table, Array("PC00".utf8)))
    }

    @Test("the power button comes with its event device")
    func powerButton() throws {
        let register = GuestAddress(0xff_fffe_c000)
        let withButton = try body(eventDevice: GenericEventDevice(register: register))
        let event = AML.if(
            .and(.local(0), .integer(8)), [.notify("\\_SB_.PWRB", 0x80)])
        #expect(contains(withButton, event.bytes))
        #expect(
            contains(
                withButton,
                AML.operationRegion("GDST", .systemMemory, offset: register.rawValue, length: 1)
                    .bytes))
        #expect(contains(withButton, AMLResource.interrupt(13, isLevel: true).bytes))
        #expect(!contains(try body(), Array("PWRB".utf8)))
    }

    private static let registers = GuestAddress(0xff_fffe_e000)

    @Test("PCI devices come and go by the controller's registers")
    func hotplug() throws {
        let event = GenericEventDevice(register: GuestAddress(0xff_fffe_c000))
        let table = try body(eventDevice: event, hotplugRegisters: Self.registers)
        let region = AML.operationRegion(
            "PCST", .systemMemory, offset: Self.registers.rawValue, length: 16)
        let scan = AML.if(.and(.local(0), .integer(4)), [.call("\\_SB_.PHPR.PSCN")])
        let slot = AML.device(
            "S031",
            [
                .name("_SUN", .integer(31)), .name("_ADR", .integer(31 << 16)),
                .method(
                    "_EJ0", arguments: 1, serialized: false,
                    [.call("\\_SB_.PHPR.PCEJ", .integer(31), .integer(0))]),
            ])
        let told = AML.if(
            .and(.argument(0), .integer(1 << 31)), [.notify("S031", .argument(1))])
        for part in [region, scan, slot, told] { #expect(contains(table, part.bytes)) }
        // The host bridge is there for good.
        #expect(!contains(table, Array("S000".utf8)))
        #expect(!contains(try body(eventDevice: event), Array("PHPR".utf8)))
        #expect(table.count < 3072, "\(table.count)")
    }

    @Test("the tables of 96 segments with slots have room")
    func manySlots() throws {
        let layout = try GuestMemoryLayout(ramBytes: 1 << 30, physicalAddressBits: 46)
        let segments = try #require(layout.pciSegments(96))
        var configuration = ACPIConfiguration(
            processors: (0..<64).map { ACPIProcessor(apicID: $0, isEnabled: true) },
            pciSegments: segments, hasSerial: true,
            eventDevice: GenericEventDevice(register: GuestAddress(0xff_fffe_c000)))
        configuration.hotplugRegisters = Self.registers
        #expect(try ACPITables.build(configuration).bytes.count < 0x50000)
    }

    @Test("every segment has a bridge, and only the first has I/O ports")
    func segments() throws {
        let two = try body(segments: [0, 10])
        let ports = AMLResource.portWindow(0...0xcf7).bytes
        #expect(contains(two, Array("_SB_PC00".utf8)))
        #expect(contains(two, Array("_SB_PC0A".utf8)))
        #expect(contains(two, ports))
        #expect(!contains(try body(segments: [10]), ports))
    }

    @Test(
        "ACPICA's compiler reads it, and finds no mistake in what it has read",
        .enabled(if: FileManager.default.isExecutableFile(atPath: iasl)), arguments: [1, 96])
    func compiler(segments count: Int) throws {
        let layout = try GuestMemoryLayout(ramBytes: 1 << 30, physicalAddressBits: 46)
        var configuration = ACPIConfiguration(
            processors: [], pciSegments: try #require(layout.pciSegments(count)),
            hasSerial: true,
            eventDevice: GenericEventDevice(register: layout.registers(of: .genericEvent)))
        configuration.hotplugRegisters = layout.registers(of: .pciHotplug)
        let folder = FileManager.default.temporaryDirectory
            .appending(path: "swiftlet-dsdt-\(UInt32.random(in: 0...UInt32.max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try Data(DSDT(configuration: configuration).table.bytes)
            .write(to: folder.appending(path: "dsdt.aml"))

        let read = try Self.run(["-d", "dsdt.aml"], in: folder)
        #expect(read.contains("Disassembly completed"), "\(read)")
        #expect(!read.contains("Error"), "\(read)")
        let compiled = try Self.run(["-p", "again", "dsdt.dsl"], in: folder)
        #expect(compiled.contains(" 0 Errors") || compiled.contains("successful"), "\(compiled)")
    }

    private static let iasl = "/usr/bin/iasl"

    private static func run(_ words: [String], in folder: URL) throws -> String {
        let process = Process()
        let output = Pipe()
        process.executableURL = URL(filePath: iasl)
        process.arguments = words
        process.currentDirectoryURL = folder
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: text, as: UTF8.self)
    }
}
