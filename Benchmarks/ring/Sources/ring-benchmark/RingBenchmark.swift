import CAllocationCount
import Glibc
import VMMBase
import VMMHost
import VMMVirtIO

/// How long one request takes through a ring: pop, push, notify. Prints one line of JSON.
@main
enum RingBenchmark {
    private static let size: UInt16 = 256
    private static let rounds = 20_000
    /// Measured again and again over some seconds: a machine that others share may be slow for as
    /// long as one measurement takes.
    private static let repetitions = 8

    private struct Variant {
        let name: String
        let isPacked: Bool
        let isIndirect: Bool
        var nanoseconds = Double.infinity
        var allocations: UInt64 = 0
    }

    private final class CountingInterrupt: QueueInterrupt {
        func signal() {}
    }

    static func main() throws {
        guard let range = GuestRange(start: GuestAddress(0), count: 4 << 20) else { return }
        let memory = try GuestMemory(ranges: [range])
        var variants = [
            Variant(name: "direct", isPacked: false, isIndirect: false),
            Variant(name: "indirect", isPacked: false, isIndirect: true),
            Variant(name: "packed_direct", isPacked: true, isIndirect: false),
            Variant(name: "packed_indirect", isPacked: true, isIndirect: true),
        ]
        for _ in 0..<repetitions {
            for index in variants.indices { try measure(&variants[index], memory) }
            usleep(500_000)
        }
        let results = variants.map { variant in
            "\"\(variant.name)_ns\": \(variant.nanoseconds), "
                + "\"\(variant.name)_allocations\": \(variant.allocations)"
        }
        let requests = repetitions * rounds * Int(size)
        print("{\(results.joined(separator: ", ")), \"requests\": \(requests)}")
    }

    private static func measure(_ variant: inout Variant, _ memory: GuestMemory) throws {
        let clock = SystemClock()
        let layout = layout
        let (isPacked, isIndirect) = (variant.isPacked, variant.isIndirect)
        if !isPacked { fill(memory, layout, indirect: isIndirect) }
        let queue = try VirtQueue(
            layout, memory: memory, features: Feature.ring | (isPacked ? Feature.packedRing : 0),
            interrupt: CountingInterrupt(), doorbell: EventFD())
        let chain = try queue.makeChains(1)[0]
        var best = UInt64.max
        var allocations: UInt64 = 0
        var index: UInt16 = 0
        // The best of many short batches: what the code costs when nobody disturbs it.
        for round in 0..<rounds {
            index &+= size
            if isPacked {
                offerPacked(memory, layout, isOddLap: round % 2 == 0, indirect: isIndirect)
            } else {
                publish(memory, layout, index)
            }
            let allocationsBefore = allocation_count()
            let start = clock.monotonicNanoseconds()
            while try queue.pop(into: chain) { queue.push(chain, written: 0) }
            queue.notify()
            best = min(best, clock.monotonicNanoseconds() - start)
            allocations += allocation_count() - allocationsBefore
        }
        variant.nanoseconds = min(variant.nanoseconds, Double(best) / Double(size))
        variant.allocations += allocations
    }

    private static var layout: VirtQueue.Layout {
        var layout = VirtQueue.Layout()
        layout.size = size
        layout.descriptors = GuestAddress(0x1000)
        layout.driverArea = GuestAddress(0x4000)
        layout.deviceArea = GuestAddress(0x8000)
        return layout
    }

    /// A packed ring full of requests of one lap. The driver has disabled interrupts.
    private static func offerPacked(
        _ memory: GuestMemory, _ layout: VirtQueue.Layout, isOddLap: Bool, indirect: Bool
    ) {
        var ring = ByteBuilder()
        for index in 0..<size {
            ring.append(indirect ? tables + 16 * UInt64(index) : buffer(index))
            ring.append(UInt32(indirect ? 16 : 4096))
            ring.append(index)
            ring.append((isOddLap ? 0x0080 : 0x8000) | (indirect ? 4 : UInt16(0)))
        }
        _ = memory.copyIn(ring.bytes, at: layout.descriptors)
        _ = memory.copyIn([0, 0, 1, 0], at: layout.driverArea)
    }

    private static let tables: UInt64 = 0x10000

    private static func buffer(_ index: UInt16) -> UInt64 { 0x100000 + UInt64(index) * 4096 }

    /// Descriptors of one 4 KiB buffer each (through a table of one entry when indirect), and an
    /// available ring that offers all of them in order, again and again.
    private static func fill(
        _ memory: GuestMemory, _ layout: VirtQueue.Layout, indirect: Bool
    ) {
        var descriptors = ByteBuilder()
        var indirectTables = ByteBuilder()
        var available = ByteBuilder()
        available.append(UInt16(0))
        available.append(UInt16(0))
        for index in 0..<size {
            append(&indirectTables, address: buffer(index), length: 4096, flags: 0)
            if indirect {
                append(&descriptors, address: tables + 16 * UInt64(index), length: 16, flags: 4)
            } else {
                append(&descriptors, address: buffer(index), length: 4096, flags: 0)
            }
            available.append(index)
        }
        // The event that the driver waits for never comes: no interrupts in the measurement.
        available.append(UInt16(0xffff))
        _ = memory.copyIn(descriptors.bytes, at: layout.descriptors)
        _ = memory.copyIn(indirectTables.bytes, at: GuestAddress(tables))
        _ = memory.copyIn(available.bytes, at: layout.driverArea)
    }

    private static func append(
        _ table: inout ByteBuilder, address: UInt64, length: UInt32, flags: UInt16
    ) {
        table.append(address)
        table.append(length)
        table.append(flags)
        table.append(UInt16(0))
    }

    private static func publish(_ memory: GuestMemory, _ layout: VirtQueue.Layout, _ index: UInt16)
    {
        let bytes = [UInt8(truncatingIfNeeded: index), UInt8(truncatingIfNeeded: index >> 8)]
        _ = memory.copyIn(bytes, at: GuestAddress(layout.driverArea.rawValue + 2))
    }
}
