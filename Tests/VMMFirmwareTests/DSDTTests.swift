import Testing
import VMMBase

@testable import VMMFirmware

@Suite("DSDT")
struct DSDTTests {
    private func body(
        segments: [UInt16] = [0], hasSerial: Bool = false, eventDevice: GenericEventDevice? = nil
    ) throws -> [UInt8] {
        let window = try #require(GuestRange(start: GuestAddress(1 << 32), count: 1 << 32))
        let configuration = ACPIConfiguration(
            processors: [],
            pciSegments: try segments.map { number in
                PCISegment(
                    number: number, ecam: try #require(GuestMemoryLayout.ecam(segment: number)),
                    mmio32: GuestMemoryLayout.mmio32Hole, mmio64: window)
            },
            hasSerial: hasSerial, eventDevice: eventDevice)
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

    @Test("every segment has a bridge, and only the first has I/O ports")
    func segments() throws {
        let two = try body(segments: [0, 10])
        let ports = AMLResource.portWindow(0...0xcf7).bytes
        #expect(contains(two, Array("_SB_PC00".utf8)))
        #expect(contains(two, Array("_SB_PC0A".utf8)))
        #expect(contains(two, ports))
        #expect(!contains(try body(segments: [10]), ports))
    }
}
