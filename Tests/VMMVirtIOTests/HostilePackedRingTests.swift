import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

@Suite("Hostile packed rings")
struct HostilePackedRingTests {
    private typealias Descriptor = FakeQueue.Descriptor
    private static let table = QueueFixture.buffers.rawValue
    private static let good = Descriptor(address: table + 4096, count: 8)

    private func expect(
        _ fault: GuestFault, _ descriptors: [Descriptor], features: UInt64 = PackedFixture.features
    ) throws {
        let fixture = try PackedFixture(features)
        fixture.driver.addDescriptors(descriptors)
        fixture.driver.publish()
        #expect(throws: fault) { try fixture.queue.pop(into: fixture.base.chain) }
    }

    @Test("a chain that goes on through every slot is a fault", arguments: [1, 3, 8] as [UInt16])
    func overLong(size: UInt16) throws {
        let fixture = try PackedFixture(size: size)
        for slot in 0..<size {
            var entry = Self.good
            entry.flags = FakePackedQueue.Lap.available | Descriptor.hasNext
            fixture.driver.write(entry, id: slot, at: slot)
        }
        #expect(throws: GuestFault("descriptor chain longer than the queue")) {
            try fixture.queue.pop(into: fixture.base.chain)
        }
    }

    @Test("more requests than there is room for are a fault")
    func inFlight() throws {
        let fixture = try PackedFixture(size: 4)
        let chains = try fixture.queue.makeChains(2)
        fixture.offer(3)
        let isFirst = try fixture.queue.pop(into: chains[0])
        // A chain of two where one slot is left: slot 3, and slot 0 that is in flight.
        var entry = Self.good
        entry.flags = FakePackedQueue.Lap.available | Descriptor.hasNext
        fixture.driver.write(entry, id: 0, at: 3)
        fixture.driver.write(Self.good, id: 7, at: 0)

        #expect(isFirst)
        #expect(throws: GuestFault("more descriptors in flight than the queue has", 7)) {
            try fixture.queue.pop(into: chains[1])
        }
    }

    @Test("an id is the driver's own affair: any comes back, twice if it came twice")
    func ids() throws {
        let fixture = try PackedFixture()
        for slot in 0..<2 as Range<UInt16> {
            var entry = Self.good
            entry.flags = FakePackedQueue.Lap.available
            fixture.driver.write(entry, id: 0xffff, at: slot)
        }
        let chains = try fixture.queue.makeChains(2)
        let popped = try chains.map { try fixture.queue.pop(into: $0) }
        #expect(popped == [true, true])
        #expect(chains.map(\.head) == [0xffff, 0xffff])
    }

    @Test("flags of both laps or of none are no request", arguments: [0, 0x8080] as [UInt16])
    func wrapGames(flags: UInt16) throws {
        let fixture = try PackedFixture()
        var entry = Self.good
        entry.flags = flags
        for slot in 0..<QueueFixture.size { fixture.driver.write(entry, id: slot, at: slot) }
        #expect(try !fixture.base.serveOne())
        #expect(!fixture.queue.hasAvailable)
    }

    @Test("a request that breaks the rules is a fault that says which")
    func direct() throws {
        var writable = Self.good
        writable.flags = Descriptor.isWritable
        try expect(
            GuestFault("readable descriptor after a writable one", Self.good.address),
            [writable, Self.good])
        let outside: [(UInt64, UInt32)] = [
            (2 << 20, 1), (.max, 1), (.max - 7, 16), ((1 << 20) - 8, 9), ((1 << 20) - 8, 4 << 20),
            (4096, .max), (1 << 20, 0),
        ]
        for (address, count) in outside {
            try expect(
                GuestFault("descriptor outside memory", address),
                [Descriptor(address: address, count: count)])
        }
    }

    @Test(
        "a table of a wrong length is a fault",
        arguments: [0, 1, 15, 17, 9 * 16, .max - 15, .max] as [UInt32])
    func tableLength(count: UInt32) throws {
        try expect(
            GuestFault("indirect descriptor table", Self.table),
            [Descriptor(address: Self.table, count: count, flags: Descriptor.isIndirect)])
    }

    @Test("a table in a chain, before or behind others, is a fault")
    func tableInChain() throws {
        let table = Descriptor(address: Self.table, count: 16, flags: Descriptor.isIndirect)
        let fault = GuestFault("indirect descriptor table", Self.table)
        try expect(fault, [table, Self.good])
        try expect(fault, [Self.good, table])
    }

    @Test("a table is a fault when indirect descriptors were not negotiated")
    func notNegotiated() throws {
        try expect(
            GuestFault("indirect descriptor table", Self.table),
            [Descriptor(address: Self.table, count: 16, flags: Descriptor.isIndirect)],
            features: Feature.version1 | Feature.packedRing)
    }

    @Test("a table that leaves memory is a fault")
    func tableOutside() throws {
        let last = QueueFixture.regionByteCount - 16
        try expect(
            GuestFault("indirect table outside memory", last),
            [Descriptor(address: last, count: 32, flags: Descriptor.isIndirect)])
    }

    @Test("10,000 random rings of random sizes are answered or refused, and never trap")
    func fuzz() throws {
        let seed = RandomSeed.make()
        print("packed ring fuzz seed \(seed)")
        var fuzzer = PackedRingFuzzer(seed: seed)
        let outcomes = try (0..<10_000).map { _ in try fuzzer.run() }
        #expect(outcomes.contains { $0.faulted } && outcomes.contains { $0.served > 0 })
    }
}

/// Fills a packed ring with numbers that are likely to hurt, and serves it.
struct PackedRingFuzzer {
    private var random: SeededGenerator

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
    }

    mutating func run() throws -> (served: Int, faulted: Bool) {
        let size = UInt16.random(in: 1...12, using: &random)
        let events = Bool.random(using: &random) ? Feature.eventIndex : 0
        let fixture = try PackedFixture(PackedFixture.features | events, size: size)
        let chains = try fixture.queue.makeChains(4)
        fill(fixture, size)
        var served = 0
        do throws(GuestFault) {
            while served < 3 * Int(size) {
                let popped = try pop(fixture.queue, chains)
                if popped.isEmpty { break }
                for chain in popped.shuffled(using: &random) {
                    fixture.queue.push(chain, written: UInt32(served))
                }
                fixture.queue.notify()
                served += popped.count
            }
            _ = fixture.queue.armDoorbell()
            return (served, false)
        } catch {
            return (served, true)
        }
    }

    /// Some requests, so that several are in flight.
    private func pop(
        _ queue: VirtQueue, _ chains: [DescriptorChain]
    ) throws(GuestFault) -> [DescriptorChain] {
        var popped: [DescriptorChain] = []
        for chain in chains {
            guard try queue.pop(into: chain) else { break }
            popped.append(chain)
        }
        return popped
    }

    private mutating func fill(_ fixture: PackedFixture, _ size: UInt16) {
        for slot in 0..<size {
            fixture.driver.write(descriptor(), id: number([slot, 0, size, 0xffff]), at: slot)
        }
        var table = ByteBuilder()
        for _ in 0..<16 { table.append(bytes: descriptor().bytes) }
        _ = fixture.base.memory.copyIn(table.bytes, at: QueueFixture.buffers)
        fixture.driver.setInterruptEvent(UInt16.random(in: .min ... .max, using: &random))
    }

    private mutating func descriptor() -> FakeQueue.Descriptor {
        let table = QueueFixture.buffers.rawValue
        let end = QueueFixture.regionByteCount
        let laps: UInt16 = number([0x80, 0x80, 0x80, 0x80, 0x8000, 0x8080, 0])
        return FakeQueue.Descriptor(
            address: number([
                table, table, table, table + 1, 0, 4096, end - 8, end, 2 << 20, 4 << 20, .max,
                .max - 15, random.next(),
            ]),
            count: number([8, 8, 8, 16, 32, 128, 144, 0, 1, 17, .max, .max - 15, 1 << 31]),
            flags: laps | number([0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7, 0x7f7f]))
    }

    private mutating func number<Value>(_ choices: [Value]) -> Value {
        choices[Int.random(in: choices.indices, using: &random)]
    }
}
