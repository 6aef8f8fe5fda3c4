import VMMBase
import VMMHost
import VMMVirtIO

/// The guest's side of one queue: batches of requests of 4 KiB at random places, each a header, a
/// page and a status byte, as Linux makes them.
final class BlockDriver {
    enum Kind: UInt32 { case read, write }

    static let featureFlush: UInt64 = 1 << 9
    private static let descriptors: UInt64 = 0x1000
    private static let available: UInt64 = 0x4000
    private static let used: UInt64 = 0x8000
    private static let headers: UInt64 = 0x10000
    private static let pages: UInt64 = 0x100000

    let layout: VirtQueue.Layout
    private(set) var failed = 0
    private let memory: GuestMemory
    private let size: UInt16
    private let batch: Int
    private let sectors: UInt64
    private let kind: Kind
    private var offered: UInt16 = 0
    private var reaped: UInt16 = 0
    private var random: UInt64 = 0x9e37_79b9_7f4a_7c15

    init(_ memory: GuestMemory, queueSize: UInt16, batch: Int, sectors: UInt64, _ kind: Kind) {
        self.memory = memory
        self.size = queueSize
        self.batch = batch
        self.sectors = sectors
        self.kind = kind
        var layout = VirtQueue.Layout()
        layout.size = queueSize
        layout.descriptors = GuestAddress(Self.descriptors)
        layout.driverArea = GuestAddress(Self.available)
        layout.deviceArea = GuestAddress(Self.used)
        self.layout = layout
        for index in 0..<batch { fill(index) }
    }

    private func fill(_ index: Int) {
        let first = UInt16(index * 3)
        let header = Self.headers + UInt64(index) * 32
        var table = ByteBuilder()
        for (address, length, flags, next) in [
            (header, UInt32(16), UInt16(1), first + 1),
            (Self.pages + UInt64(index) * 4096, 4096, kind == .read ? 3 : 1, first + 2),
            (header + 16, 1, 2, 0),
        ] {
            table.append(address)
            table.append(length)
            table.append(flags)
            table.append(next)
        }
        _ = memory.copyIn(
            table.bytes, at: GuestAddress(Self.descriptors + 16 * UInt64(first)))
    }

    func publishBatch() {
        for index in 0..<batch {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let sector = (random >> 33) % (sectors / 8) * 8
            var header = ByteBuilder()
            header.append(kind.rawValue)
            header.append(UInt32(0))
            header.append(sector)
            header.append(UInt8(0xff))
            _ = memory.copyIn(header.bytes, at: GuestAddress(Self.headers + UInt64(index) * 32))
            store(UInt16(index * 3), at: Self.available + 4 + 2 * UInt64(offered & (size - 1)))
            offered &+= 1
        }
        // The interrupt is wanted when all are done.
        store(offered &- 1, at: Self.available + 4 + 2 * UInt64(size))
        store(offered, at: Self.available + 2)
    }

    var isDone: Bool { reaped == offered }

    func reap() {
        let index = memory.copyOut(GuestAddress(Self.used + 2), count: 2) ?? [0, 0]
        reaped = UInt16(index[0]) | UInt16(index[1]) << 8
        guard isDone else { return }
        for index in 0..<batch {
            let status = GuestAddress(Self.headers + UInt64(index) * 32 + 16)
            if memory.copyOut(status, count: 1) != [0] { failed += 1 }
        }
    }

    private func store(_ value: UInt16, at address: UInt64) {
        _ = memory.copyIn(
            [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)], at: GuestAddress(address))
    }
}
