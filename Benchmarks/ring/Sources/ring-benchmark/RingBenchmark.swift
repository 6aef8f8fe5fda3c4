import CAllocationCount
import VMMBase
import VMMHost
import VMMVirtIO

/// How long one request takes through a ring: pop, push, notify. Prints one line of JSON.
@main
enum RingBenchmark {
    private static let size: UInt16 = 256
    private static let rounds = 20_000

    private final class CountingInterrupt: QueueInterrupt {
        func signal() {}
    }

    static func main() throws {
        guard let range = GuestRange(start: GuestAddress(0), count: 4 << 20) else { return }
        let memory = try GuestMemory(ranges: [range])
        let clock = SystemClock()
        var results: [String] = []
        for (name, isIndirect) in [("direct", false), ("indirect", true)] {
            let layout = fill(memory, indirect: isIndirect)
            let queue = try VirtQueue(
                layout, memory: memory, features: Feature.ring, interrupt: CountingInterrupt(),
                doorbell: EventFD())
            let chain = try queue.makeChains(1)[0]
            var best = UInt64.max
            var allocations: UInt64 = 0
            var index: UInt16 = 0
            // The best of many short batches: what the code costs when nobody disturbs it.
            for _ in 0..<rounds {
                index &+= size
                publish(memory, layout, index)
                let allocationsBefore = allocation_count()
                let start = clock.monotonicNanoseconds()
                while try queue.pop(into: chain) { queue.push(chain, written: 0) }
                queue.notify()
                best = min(best, clock.monotonicNanoseconds() - start)
                allocations += allocation_count() - allocationsBefore
            }
            let nanoseconds = Double(best) / Double(size)
            results.append(
                "\"\(name)_ns\": \(nanoseconds), \"\(name)_allocations\": \(allocations)")
        }
        print("{\(results.joined(separator: ", ")), \"requests\": \(rounds * Int(size))}")
    }

    /// Descriptors of one 4 KiB buffer each (through a table of one entry when indirect), and an
    /// available ring that offers all of them in order, again and again.
    private static func fill(_ memory: GuestMemory, indirect: Bool) -> VirtQueue.Layout {
        var layout = VirtQueue.Layout()
        layout.size = size
        layout.descriptors = GuestAddress(0x1000)
        layout.driverArea = GuestAddress(0x4000)
        layout.deviceArea = GuestAddress(0x8000)
        let tables: UInt64 = 0x10000
        var descriptors = ByteBuilder()
        var indirectTables = ByteBuilder()
        var available = ByteBuilder()
        available.append(UInt16(0))
        available.append(UInt16(0))
        for index in 0..<size {
            let buffer = 0x100000 + UInt64(index) * 4096
            append(&indirectTables, address: buffer, length: 4096, flags: 0)
            if indirect {
                append(&descriptors, address: tables + 16 * UInt64(index), length: 16, flags: 4)
            } else {
                append(&descriptors, address: buffer, length: 4096, flags: 0)
            }
            available.append(index)
        }
        // The event that the driver waits for never comes: no interrupts in the measurement.
        available.append(UInt16(0xffff))
        _ = memory.copyIn(descriptors.bytes, at: layout.descriptors)
        _ = memory.copyIn(indirectTables.bytes, at: GuestAddress(tables))
        _ = memory.copyIn(available.bytes, at: layout.driverArea)
        return layout
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
