import Synchronization
import Testing
import VMMBase
import VMMBus
import VMMHost
import VMMTestSupport

@testable import VMMDevices

@Suite("PanicDevice")
struct PanicDeviceTests {
    private final class Journal: Sendable {
        let names = Mutex<[String]>([])
    }

    private static let place = GuestAddress(0x1_0000_0000)
    private static let limiter = LogLimiter(clock: ManualClock())
    private let bus = Bus()
    private let journal = Journal()
    private let device: PanicDevice

    init() {
        device = PanicDevice(on: bus, at: Self.place, limiter: Self.limiter) { [journal] name in
            journal.names.withLock { $0.append(name) }
        }
    }

    private var told: [String] { journal.names.withLock { $0 } }

    private func decode(_ isOn: Bool) {
        device.writeConfiguration(at: 4, width: .word, value: isOn ? 2 : 0)
    }

    private func read() -> UInt64 { bus.read(address: Self.place.rawValue, width: .byte) }

    @Test("it is given by a bare word, and needs PCI")
    func spec() throws {
        #expect(problems("id=x", as: PanicSpec.self).count == 1)
        let spec = try PanicSpec.parse(OptionText(option: "--pvpanic", pairs: []))
        let context = DeviceContext(id: "__pvpanic", loop: try EventLoop(), clock: ManualClock())
        guard case .card(let byteCount, let make) = try spec.build(context) else {
            return #expect(Bool(false), "no card")
        }
        #expect(byteCount == 16)
        #expect(make(bus, Self.place).registers?.start == Self.place)
    }

    @Test("it is QEMU's device, with a BAR of its own")
    func identity() {
        #expect(device.readConfiguration(at: 0, width: .doubleWord) == 0x0011_1b36)
        #expect(device.readConfiguration(at: 8, width: .doubleWord) >> 16 == 0x0880)
        device.writeConfiguration(at: 0x10, width: .doubleWord, value: .max)
        #expect(device.readConfiguration(at: 0x10, width: .doubleWord) == 0xffff_fff4)
    }

    @Test("the register answers while the guest lets it, and where the guest puts it")
    func register() {
        #expect(read() == 0xff)
        decode(true)
        #expect(read() == 3)
        device.writeConfiguration(at: 0x10, width: .doubleWord, value: 0x2000)
        #expect(read() == 0xff)
        #expect(bus.read(address: 0x1_0000_2000, width: .byte) == 3)
        #expect(device.registers?.start.rawValue == 0x1_0000_2000)
        decode(false)
        #expect(bus.read(address: 0x1_0000_2000, width: .byte) == 0xff)
    }

    @Test("a place that is another device's is none")
    func conflict() throws {
        let other = PanicDevice(on: bus, at: Self.place, limiter: Self.limiter) { _ in }
        other.writeConfiguration(at: 4, width: .word, value: 2)
        decode(true)
        other.unplug()
        #expect(read() == 0xff)
        decode(false)
        decode(true)
        #expect(read() == 3)
        device.unplug()
        #expect(read() == 0xff)
    }

    @Test("each kind of event is told once, however often the guest says it")
    func events() {
        decode(true)
        for value in [0, 4, 0xf0, 2, 2, 3, 1, 0xff] as [UInt64] {
            bus.write(address: Self.place.rawValue, width: .byte, value: value)
            bus.write(address: Self.place.rawValue + 1, width: .byte, value: value)
        }
        #expect(told == ["crash_loaded", "panic"])
    }
}
