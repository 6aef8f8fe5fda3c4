import VMMBase
import VMMBus
import VMMDevices
import VMMTestSupport

/// The input is what a guest does to the board's own registers: serial port, clock, keyboard
/// controller, IOAPIC, ACPI and its hotplug controller, with a host that does things meanwhile.
enum PlatformTarget: FuzzTarget {
    static let name = "platform"

    private enum Step: UInt8, CaseIterable {
        case portWrite, portRead, write, read, type, wait, event, plug
    }

    private static let stepLimit = 512

    static let words = [0x3f8, 0x70, 0x71, 0x60c, 0x600].map { FuzzInput.bytes(UInt16($0)) }

    static func seeds() -> [[UInt8]] {
        let out = { (port: UInt16, value: UInt8) in
            [Step.portWrite.rawValue] + FuzzInput.bytes(port) + [0] + FuzzInput.bytes(UInt64(value))
        }
        let plug = [Step.plug.rawValue, 1, 3]
        let eject = [Step.write.rawValue, 1, 8, 2] + FuzzInput.bytes(UInt64(8))
        return [
            out(0x3f9, 15) + out(0x3f8, 65) + [Step.type.rawValue, 2, 65, 66]
                + [Step.portRead.rawValue] + FuzzInput.bytes(UInt16(0x3f8)) + [0],
            out(0x70, 10) + out(0x71, 0xff) + [Step.wait.rawValue, 1, 0, 0, 0],
            plug + eject + [Step.event.rawValue, 4],
            [Step.write.rawValue, 0, 0, 2] + FuzzInput.bytes(UInt64(0x10))
                + [Step.write.rawValue, 0, 0x10, 2] + FuzzInput.bytes(UInt64(0x8041)),
        ]
    }

    static func run(_ input: FuzzInput) {
        var input = input
        guard let board = try? Board() else { return }
        for _ in 0..<stepLimit where !input.isEmpty { step(&input, board) }
        precondition(
            board.channel.sent.count <= stepLimit, "a byte is sent for each that is written")
    }

    private static func step(_ input: inout FuzzInput, _ board: Board) {
        switch Step.allCases[Int(input.next(UInt8.self)) % Step.allCases.count] {
        case .portWrite:
            let port = UInt64(input.next(UInt16.self))
            board.ports.write(address: port, width: width(&input), value: input.next())
        case .portRead:
            _ = board.ports.read(address: UInt64(input.next(UInt16.self)), width: width(&input))
        case .write:
            board.memory.write(address: address(&input), width: width(&input), value: input.next())
        case .read:
            _ = board.memory.read(address: address(&input), width: width(&input))
        case .type: board.uart.receive(input.take(Int(input.next(UInt8.self))))
        case .wait:
            // Up to some 70 minutes at a time.
            board.clock.advance(nanoseconds: UInt64(input.next(UInt32.self)) << 10)
        case .event: board.events.notify(GenericEventDevice.Event(rawValue: input.next()))
        case .plug:
            let segment = UInt16(input.next(UInt8.self)) % Board.segmentCount
            let kind = input.next(UInt8.self)
            let place = PCIAddress(segment: segment, device: kind & 31)
            if kind & 0x80 == 0 { board.hotplug.requestRemoval(of: place) }
            board.hotplug.add(place)
        }
    }

    /// A register of the chips on the memory bus.
    private static func address(_ input: inout FuzzInput) -> UInt64 {
        let chip = UInt64(input.next(UInt8.self) % 3)
        return Board.base + chip << 12 + UInt64(input.next(UInt8.self))
    }

    private static func width(_ input: inout FuzzInput) -> AccessWidth {
        AccessWidth.allCases[Int(input.next(UInt8.self)) % AccessWidth.allCases.count]
    }

    /// The chips, each at its usual port or at a page of memory.
    private final class Board {
        static let segmentCount: UInt16 = 3
        static let base: UInt64 = 0xfec0_0000

        let ports = Bus()
        let memory = Bus()
        let channel = RecordingChannel()
        let uart: UART16550
        // In November 2026.
        let clock = ManualClock(realtime: 1_795_305_600_000_000_000)
        let events: GenericEventDevice
        let hotplug: PCIHotplugController

        init() throws {
            let ioapic = IOAPIC(sink: Nowhere())
            events = GenericEventDevice(line: ioapic.line(5))
            hotplug = PCIHotplugController(segmentCount: Int(Self.segmentCount)) { place in
                precondition(place.device < 32, "a guest gives back what is there")
            }
            uart = UART16550(line: ioapic.line(4), channel: channel)
            try ports.attach(uart, at: 0x3f8, count: 8)
            try ports.attach(I8042 {}, at: 0x61, count: 4)
            try ports.attach(
                CMOS(clock: clock, memoryBelow4G: 1 << 30, memoryAbove4G: 1 << 32) {},
                at: 0x70, count: 2)
            try ports.attach(
                DebugPort(clock: clock, limiter: LogLimiter(clock: clock)), at: 0x80, count: 1)
            try ports.attach(
                ACPIPowerRegisters {
                } powerOff: {
                }, at: 0x600, count: 8)
            try ports.attach(ACPITimer(clock: clock), at: 0x608, count: 4)
            try ports.attach(DebugConsole(channel: RecordingChannel()), at: 0xe9, count: 1)
            try memory.attach(ioapic, at: Self.base, count: 0x1000)
            try memory.attach(
                hotplug, at: Self.base + 0x1000, count: PCIHotplugController.byteCount)
            try memory.attach(events, at: Self.base + 0x2000, count: 1)
        }
    }

    private struct Nowhere: InterruptPinSink {
        func route(pin: Int, _ message: InterruptMessage?) {}
        func deliver(_ message: InterruptMessage) {}
    }
}
