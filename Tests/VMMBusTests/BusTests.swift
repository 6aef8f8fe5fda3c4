import Synchronization
import Testing
import VMMBase
import VMMBus

/// Answers each read with its offset and remembers the last write.
private final class EchoDevice: BusDevice {
    let lastWrite = Mutex<(offset: UInt64, value: UInt64)?>(nil)

    func read(offset: UInt64, width: AccessWidth) -> UInt64 { offset }
    func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        lastWrite.withLock { $0 = (offset, value) }
    }
}

@Suite("Bus")
struct BusTests {
    @Test("an access reaches the device that owns the address, with the offset in it")
    func routing() throws {
        let bus = Bus()
        let (low, high) = (EchoDevice(), EchoDevice())
        try bus.attach(high, at: 0x100, count: 0x10)
        try bus.attach(low, at: 0x10, count: 8)

        bus.write(address: 0x17, width: .byte, value: 5)

        #expect(bus.read(address: 0x10f, width: .byte) == 0xf)
        #expect(low.lastWrite.withLock { $0?.offset } == 7)
        #expect(high.lastWrite.withLock { $0?.offset } == nil)
    }

    @Test("an address that nobody owns reads as all ones of the width")
    func unclaimed() throws {
        let bus = Bus()
        try bus.attach(EchoDevice(), at: 0x10, count: 8)

        #expect(bus.read(address: 0x18, width: .word) == 0xffff)
        #expect(bus.read(address: 0xf, width: .byte) == 0xff)
        #expect(bus.read(address: .max, width: .quadWord) == .max)
    }

    @Test(
        "overlapping and impossible ranges are refused",
        arguments: [
            (0x10, 1), (0xf, 2), (0x17, 4), (0x0, 0x100), (0x30, 0), (UInt64.max, 2),
        ] as [(UInt64, UInt64)])
    func conflicts(base: UInt64, count: UInt64) throws {
        let bus = Bus()
        try bus.attach(EchoDevice(), at: 0x10, count: 8)

        #expect(throws: Bus.Conflict.self) { try bus.attach(EchoDevice(), at: base, count: count) }
    }

    @Test("a detached range answers no more and can be taken again")
    func detach() throws {
        let bus = Bus()
        try bus.attach(EchoDevice(), at: 0x10, count: 8)

        bus.detach(at: 0x10)

        #expect(bus.read(address: 0x12, width: .byte) == 0xff)
        try bus.attach(EchoDevice(), at: 0x12, count: 4)
        #expect(bus.read(address: 0x13, width: .byte) == 1)
    }
}
