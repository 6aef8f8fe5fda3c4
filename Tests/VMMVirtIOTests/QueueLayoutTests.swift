import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

@Suite("Queue layout")
struct QueueLayoutTests {
    private static let good: VirtQueue.Layout = {
        var layout = VirtQueue.Layout()
        layout.size = 8
        layout.descriptors = GuestAddress(0x1000)
        layout.driverArea = GuestAddress(0x2000)
        layout.deviceArea = GuestAddress(0x3000)
        return layout
    }()

    private func make(_ change: (inout VirtQueue.Layout) -> Void) throws -> VirtQueue {
        var layout = Self.good
        change(&layout)
        return try VirtQueue(
            layout, memory: QueueFixture.makeMemory(), features: Feature.ring,
            interrupt: FakeQueue.Interrupt(), doorbell: EventFD())
    }

    @Test("sizes from 1 to 32768 are taken", arguments: [1, 2, 256, 32768] as [UInt16])
    func goodSizes(size: UInt16) throws {
        // 32768 descriptors take half of a region, and the rings another part.
        let queue = try make {
            $0.size = size
            $0.driverArea = GuestAddress(0x9_0000)
            $0.deviceArea = GuestAddress(4 << 20)
        }
        #expect(queue.size == size)
    }

    @Test("a size that is no power of two is a fault", arguments: [0, 3, 6, 0xffff] as [UInt16])
    func badSizes(size: UInt16) {
        #expect(throws: GuestFault("queue size is not a power of two", UInt64(size))) {
            try make { $0.size = size }
        }
    }

    /// Misaligned, in the hole, over a region's end, at the end of the address space.
    private static let badAddresses: [UInt64] = [
        0x1001, 1 << 21, (1 << 20) - 16, .max, .max & ~15, .max & ~4095,
    ]

    @Test(
        "a descriptor table that is misaligned or outside memory is a fault",
        arguments: badAddresses + [0x1008])
    func descriptors(address: UInt64) {
        #expect(throws: GuestFault("descriptor table outside memory", address)) {
            try make { $0.descriptors = GuestAddress(address) }
        }
    }

    @Test(
        "an available ring that is misaligned or outside memory is a fault",
        arguments: badAddresses)
    func available(address: UInt64) {
        #expect(throws: GuestFault("available ring outside memory", address)) {
            try make { $0.driverArea = GuestAddress(address) }
        }
    }

    @Test(
        "a used ring that is misaligned or outside memory is a fault",
        arguments: badAddresses + [0x1002])
    func used(address: UInt64) {
        #expect(throws: GuestFault("used ring outside memory", address)) {
            try make { $0.deviceArea = GuestAddress(address) }
        }
    }

    @Test("areas may end with their region")
    func endOfRegion() throws {
        // A used ring of 8 entries has 6 + 8 * 8 bytes; 72 is the next multiple of 4.
        let queue = try make { $0.deviceArea = GuestAddress(QueueFixture.regionByteCount - 72) }
        #expect(queue.size == 8)
    }
}
