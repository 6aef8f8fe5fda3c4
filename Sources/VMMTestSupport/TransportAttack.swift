import VMMBase
import VMMHost
import VMMVirtIO

/// A driver out of its mind, on either transport: registers of every width at every place,
/// features that were not offered, queues of every size and anywhere, rings of random
/// descriptors, resets at any time. The same seed does the same.
package struct TransportAttack {
    private let rig: TransportRig
    private var random: SeededGenerator

    package init(_ rig: TransportRig, seed: UInt64) {
        self.rig = rig
        random = SeededGenerator(seed: seed)
    }

    /// Does so many things; returns what is wrong with the device after a reset. A trap or a hang
    /// fails the test run by itself.
    package mutating func run(steps: Int) -> [String] {
        for _ in 0..<steps { step() }
        return rig.revival()
    }

    private mutating func step() {
        switch Int.random(in: 0..<18, using: &random) {
        case 0: rig.reset()
        case 16: rig.resetQueue(Int.random(in: 0..<rig.queueCount + 1, using: &random))
        case 17: reviveQueue()
        case 1, 2: start()
        case 3, 4, 5: fillRings()
        case 6, 7, 8: rig.ring(Int.random(in: 0..<rig.queueCount + 2, using: &random))
        case 9: rig.settle()
        case 10, 11, 12: _ = rig.read(offset(), width())
        default: rig.write(offset(), width(), value())
        }
    }

    private mutating func start() {
        if Bool.random(using: &random) { rig.reset() }
        let features: UInt64 = number([
            rig.features, rig.features, rig.features | Feature.packedRing,
            rig.features & ~Feature.version1, .max, random.next(),
        ])
        let size: UInt16? = number([
            nil, nil, 1, 2, 3, 7, 64, 100, 128, 255, 256, 0, 1024, 32768, 32769, .max,
        ])
        rig.start(features, size: size)
    }

    private mutating func reviveQueue() {
        rig.reviveQueue(
            Int.random(in: 0..<rig.queueCount, using: &random),
            size: number([1, 2, 16, 64, 100, 128, 256, 0, 32768]))
    }

    /// Descriptors of either format where the rings are, most of them with sensible addresses.
    private mutating func fillRings() {
        var bytes = ByteBuilder()
        for _ in 0..<64 {
            bytes.append(
                number([
                    TransportRig.buffers, TransportRig.buffers + random.next() % 4096, 0, 0x1000,
                    FakeDriver.unmapped.rawValue, .max, FakeDriver.memoryByteCount - 8,
                ]))
            bytes.append(number([8, 16, 64, 512, 4096, 0, 1, .max]) as UInt32)
            bytes.append(number([0, 1, 2, 3, 5, 0x80, 0x81, 0x82, 0x83, 0x84]) as UInt16)
            bytes.append(number([0, 1, 2, 3, 4, 0x80, 0x81, 0x82, 0x84, 0x8000, .max]) as UInt16)
        }
        let page = UInt64.random(in: 1..<16, using: &random) * 4096
        _ = rig.memory.copyIn(bytes.bytes, at: GuestAddress(page))
        _ = rig.memory.copyIn(
            bytes.bytes, at: GuestAddress(TransportRig.buffers + page % 8192))
        // The available index of a split ring of 256 or 128, to something.
        let index = [UInt8(truncatingIfNeeded: random.next()), 0]
        _ = rig.memory.copyIn(index, at: GuestAddress(page + number([4096, 2048, 1024]) + 2))
    }

    private mutating func offset() -> UInt64 {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: UInt64.random(in: 0..<rig.byteCount, using: &random)
        case 1: number([0x100, 0x1000, 0x2000, 0x3000, 0x8000, 0xc000]) % rig.byteCount
        default: UInt64.random(in: 0..<0x110, using: &random)
        }
    }

    private mutating func width() -> AccessWidth { number(AccessWidth.allCases) }

    private mutating func value() -> UInt64 {
        number([0, 1, 2, 3, 4, 8, 11, 15, 64, 128, 256, 0xffff, .max, 0x1000, random.next()])
    }

    private mutating func number<Value>(_ choices: [Value]) -> Value {
        choices[Int.random(in: choices.indices, using: &random)]
    }
}
