import Synchronization
import Testing
import VMMBase
import VMMBus

@testable import VMMDevices

/// What the chip told the local APICs.
private final class RecordingSink: InterruptPinSink {
    enum Call: Equatable {
        case route(Int, InterruptMessage?)
        case deliver(InterruptMessage)
    }

    private let calls = Mutex<[Call]>([])

    func route(pin: Int, _ message: InterruptMessage?) {
        calls.withLock { $0.append(.route(pin, message)) }
    }

    func deliver(_ message: InterruptMessage) { calls.withLock { $0.append(.deliver(message)) } }

    func take() -> [Call] {
        calls.withLock { calls in
            defer { calls = [] }
            return calls
        }
    }
}

@Suite("IOAPIC")
struct IOAPICTests {
    private let sink = RecordingSink()
    private let chip: IOAPIC

    /// Level-triggered, not masked, vector 0x41.
    private let levelEntry: UInt32 = 0x8041
    private let levelMessage = InterruptMessage(address: 0xfee0_0000, data: 0xc041)
    private let edgeMessage = InterruptMessage(address: 0xfee0_0000, data: 0x31)

    init() {
        chip = IOAPIC(sink: sink)
    }

    private func read(_ register: UInt64) -> UInt64 {
        chip.write(offset: 0, width: .doubleWord, value: register)
        return chip.read(offset: 0x10, width: .doubleWord)
    }

    private func write(_ register: UInt64, _ value: UInt32) {
        chip.write(offset: 0, width: .doubleWord, value: register)
        chip.write(offset: 0x10, width: .doubleWord, value: UInt64(value))
    }

    private func program(_ pin: UInt64, low: UInt32, high: UInt32 = 0) {
        write(0x11 + 2 * pin, high)
        write(0x10 + 2 * pin, low)
    }

    @Test("the version register tells of 24 pins")
    func version() {
        #expect(read(1) == 0x0017_0011)
    }

    @Test("all pins are masked at first, and the id can be set")
    func initialValues() {
        #expect((0..<24).allSatisfy { read(0x10 + 2 * $0) == 0x1_0000 })
        write(0, .max)
        #expect(read(0) == 0x0f00_0000)
    }

    @Test("an entry reads back without reserved and read-only bits")
    func entryMask() {
        program(5, low: .max, high: .max)
        #expect(read(0x10 + 10) == 0x0001_afff)
        #expect(read(0x11 + 10) == 0xfffe_0000)
    }

    @Test("a rising edge is delivered once, with its message")
    func edge() {
        program(4, low: 0x31)
        let line = chip.line(4)
        line.set(true)
        line.set(true)
        line.set(false)
        line.set(true)
        #expect(
            sink.take() == [
                .route(4, edgeMessage), .deliver(edgeMessage), .deliver(edgeMessage),
            ])
    }

    @Test("an edge at a masked pin is lost")
    func maskedEdge() {
        let line = chip.line(4)
        line.set(true)
        program(4, low: 0x31)
        #expect(sink.take() == [.route(4, edgeMessage)])
    }

    @Test("destination, its extension, modes and vector are encoded into the message")
    func encoding() {
        // Lowest priority, logical mode, destination 0xab, extension 0x55.
        program(3, low: 0x0000_0951, high: 0xab00_0000 | 0x55 << 17)
        let message = InterruptMessage(
            address: 0xfee0_0000 | 0xab << 12 | 0x55 << 5 | 1 << 2, data: 0x151)
        #expect(sink.take() == [.route(3, message)])
    }

    @Test("a level interrupt is delivered once until its end, then again while the line is high")
    func level() {
        program(13, low: levelEntry)
        let line = chip.line(13)
        line.set(true)
        line.set(false)
        line.set(true)
        #expect(sink.take() == [.route(13, levelMessage), .deliver(levelMessage)])
        #expect(read(0x10 + 26) & 0x4000 != 0)
        chip.endOfInterrupt(vector: 0x41)
        #expect(sink.take() == [.deliver(levelMessage)])
        line.set(false)
        chip.endOfInterrupt(vector: 0x41)
        #expect(sink.take().isEmpty)
        #expect(read(0x10 + 26) & 0x4000 == 0)
    }

    @Test("the end of another vector changes nothing")
    func foreignEnd() {
        program(13, low: levelEntry)
        chip.line(13).set(true)
        _ = sink.take()
        chip.endOfInterrupt(vector: 0x42)
        #expect(sink.take().isEmpty)
    }

    @Test("a level that waits behind a mask is delivered when the mask goes")
    func unmaskLevel() {
        chip.line(13).set(true)
        program(13, low: levelEntry | 0x1_0000)
        #expect(sink.take().isEmpty)
        write(0x10 + 26, levelEntry)
        #expect(sink.take() == [.route(13, levelMessage), .deliver(levelMessage)])
    }

    @Test("masking takes the route away")
    func mask() {
        program(4, low: 0x31)
        _ = sink.take()
        write(0x10 + 8, 0x1_0031)
        #expect(sink.take() == [.route(4, nil)])
    }

    @Test("a pin masked between its interrupt and the end keeps the route until then")
    func maskInService() {
        program(13, low: levelEntry)
        let line = chip.line(13)
        line.set(true)
        _ = sink.take()
        write(0x10 + 26, levelEntry | 0x1_0000)
        #expect(sink.take().isEmpty)
        line.set(false)
        chip.endOfInterrupt(vector: 0x41)
        #expect(sink.take() == [.route(13, nil)])
    }

    @Test("turning a pin to edge and back clears the remote IRR")
    func edgeTrick() {
        program(13, low: levelEntry)
        let line = chip.line(13)
        line.set(true)
        line.set(false)
        write(0x10 + 26, 0x1_0041)
        write(0x10 + 26, 0x1_8041)
        #expect(read(0x10 + 26) & 0x4000 == 0)
    }

    @Test("reset masks all pins")
    func reset() {
        program(4, low: 0x31)
        _ = sink.take()
        chip.reset()
        #expect(sink.take() == [.route(4, nil)])
        #expect(read(0x10 + 8) == 0x1_0000)
    }

    @Test("no register number, offset or width traps")
    func hostileAccess() {
        for register in UInt64(0)..<256 {
            for width in AccessWidth.allCases {
                chip.write(offset: 0, width: width, value: register)
                chip.write(offset: 0x10, width: width, value: .max)
                _ = chip.read(offset: 0x10, width: width)
                chip.write(offset: register, width: width, value: .max)
                _ = chip.read(offset: register, width: width)
            }
        }
        #expect(chip.read(offset: 0x40, width: .doubleWord) == 0)
    }
}
