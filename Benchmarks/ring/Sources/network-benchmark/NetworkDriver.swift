import VMMBase
import VMMHost
import VMMVirtIO

/// The guest's side of one queue, whose requests come back in the order in which they were made:
/// each slot of the available ring has its request for good, and to offer some more is one store.
final class NetworkDriver {
    private final class NoInterrupt: QueueInterrupt {
        func signal() {}
    }

    private static let size: UInt16 = 256

    let queue: VirtQueue
    private let memory: GuestMemory
    private let layout: VirtQueue.Layout
    private var offered: UInt16 = 0

    /// There are `requests` requests, used in turn, of `pieces` buffers of `byteCount` bytes each.
    init(
        _ memory: GuestMemory, features: UInt64, requests: Int, pieces: Int, byteCount: UInt32,
        isWritable: Bool
    ) throws {
        self.memory = memory
        var layout = VirtQueue.Layout()
        layout.size = Self.size
        layout.descriptors = GuestAddress(0)
        layout.driverArea = GuestAddress(0x4000)
        layout.deviceArea = GuestAddress(0x8000)
        self.layout = layout
        queue = try VirtQueue(
            layout, memory: memory, features: features, interrupt: NoInterrupt(),
            doorbell: EventFD())
        var table = ByteBuilder()
        for index in 0..<requests * pieces {
            let isLast = index % pieces == pieces - 1
            table.append(0x10000 + UInt64(index) * UInt64((byteCount + 63) / 64 * 64))
            table.append(byteCount)
            table.append((isWritable ? 2 : UInt16(0)) | (isLast ? 0 : 1))
            table.append(isLast ? 0 : UInt16(index + 1))
        }
        _ = memory.copyIn(table.bytes, at: layout.descriptors)
        var available = ByteBuilder()
        available.append(UInt32(0))
        for slot in 0..<Int(Self.size) { available.append(UInt16(slot % requests * pieces)) }
        // The event that the driver waits for never comes: no interrupts in the measurement.
        available.append(UInt16(0xffff))
        _ = memory.copyIn(available.bytes, at: layout.driverArea)
    }

    func offer(_ count: Int) {
        offered &+= UInt16(count)
        store(offered, at: layout.driverArea.rawValue + 2)
    }

    /// Offers again what has come back: as many buffers wait as at first.
    func offerUsed(of first: Int) {
        let index = memory.copyOut(GuestAddress(layout.deviceArea.rawValue + 2), count: 2) ?? []
        let used = index.reversed().reduce(UInt16(0)) { $0 << 8 | UInt16($1) }
        offer(Int(used &+ UInt16(first) &- offered))
    }

    private func store(_ value: UInt16, at address: UInt64) {
        _ = memory.copyIn(
            [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)], at: GuestAddress(address))
    }
}
