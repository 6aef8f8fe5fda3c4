import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// A ring that breaks the rules, and the fault that it has to cause.
struct HostileRing: Sendable, CustomTestStringConvertible {
    typealias Descriptor = FakeQueue.Descriptor

    let testDescription: String
    let fault: GuestFault
    let prepare: @Sendable (QueueFixture) -> Void

    private init(
        _ name: String, _ fault: GuestFault, _ prepare: @escaping @Sendable (QueueFixture) -> Void
    ) {
        testDescription = name
        self.fault = fault
        self.prepare = prepare
    }

    /// One descriptor, offered as a request.
    private static func single(
        _ name: String, _ reason: StaticString, _ address: UInt64, count: UInt32
    ) -> HostileRing {
        HostileRing(name, GuestFault(reason, address)) { fixture in
            fixture.driver.write(Descriptor(address: address, count: count), at: 0)
            fixture.driver.offer(0)
            fixture.driver.publish()
        }
    }

    private static let good = Descriptor(address: QueueFixture.buffers.rawValue + 4096, count: 8)
    private static let table = QueueFixture.buffers.rawValue

    private static func indirect(
        _ name: String, _ fault: GuestFault, _ entries: [Descriptor], count: UInt32? = nil,
        flags: UInt16 = 0
    ) -> HostileRing {
        HostileRing(name, fault) { fixture in
            fixture.offerIndirect(entries, count: count, flags: flags)
        }
    }

    private static func chained(_ next: UInt16) -> Descriptor {
        Descriptor(address: good.address, count: 8, flags: Descriptor.hasNext, next: next)
    }

    static let direct = [
        HostileRing(
            "the available index runs ahead",
            GuestFault("available index ran ahead of the queue", 9)
        ) { $0.driver.publish(index: QueueFixture.size + 1) },
        HostileRing(
            "the available index goes back",
            GuestFault("available index ran ahead of the queue", 0xffff)
        ) { $0.driver.publish(index: 0xffff) },
        HostileRing("the head is the size", GuestFault("descriptor index", 8)) {
            $0.driver.offer(QueueFixture.size)
            $0.driver.publish()
        },
        HostileRing(
            "the next descriptor is beyond the size", GuestFault("descriptor index", 0xffff)
        ) { fixture in
            fixture.driver.write(chained(0xffff), at: 0)
            fixture.driver.offer(0)
            fixture.driver.publish()
        },
        HostileRing("a descriptor follows itself", GuestFault("descriptor chain loops", 3)) {
            fixture in
            fixture.driver.write(chained(3), at: 3)
            fixture.driver.offer(3)
            fixture.driver.publish()
        },
        HostileRing("a chain visits every descriptor twice", GuestFault("descriptor chain loops")) {
            fixture in
            for index in 0..<QueueFixture.size {
                fixture.driver.write(chained((index + 1) % QueueFixture.size), at: index)
            }
            fixture.driver.offer(0)
            fixture.driver.publish()
        },
        HostileRing(
            "readable memory behind writable",
            GuestFault("readable descriptor after a writable one", table)
        ) { fixture in
            fixture.driver.add([
                fixture.buffer(8, isWritable: true), fixture.buffer(8, isWritable: false),
            ])
            fixture.driver.publish()
        },
        single("memory in the hole", "descriptor outside memory", 2 << 20, count: 1),
        single("memory at the top", "descriptor outside memory", .max, count: 1),
        single("memory that wraps", "descriptor outside memory", .max - 7, count: 16),
        single(
            "memory that leaves a region by a byte", "descriptor outside memory", (1 << 20) - 8,
            count: 9),
        single(
            "memory over the hole into the next region", "descriptor outside memory",
            (1 << 20) - 8, count: 4 << 20),
        single("a length of 4 GiB", "descriptor outside memory", 4096, count: .max),
        single("no bytes behind a region's end", "descriptor outside memory", 1 << 20, count: 0),
    ]

    private static let tableFault = GuestFault("indirect descriptor table", table)

    static let indirect = [
        indirect("an empty table", tableFault, [], count: 0),
        indirect("a table of 17 bytes", tableFault, [good], count: 17),
        indirect("a table of 15 bytes", tableFault, [good], count: 15),
        indirect("a table longer than the queue", tableFault, [good], count: 9 * 16),
        indirect("a table of 4 GiB", tableFault, [good], count: .max - 15),
        indirect("a table with NEXT", tableFault, [good], flags: Descriptor.hasNext),
        indirect(
            "a table in a table", GuestFault("indirect table inside an indirect table"),
            [Descriptor(address: good.address, count: 16, flags: Descriptor.isIndirect)]),
        indirect("an index beyond the table", GuestFault("indirect index", 2), [chained(2), good]),
        indirect(
            "a loop in the table", GuestFault("indirect chain loops", table),
            [chained(1), chained(0)]),
        indirect(
            "memory outside in the table", GuestFault("descriptor outside memory", 2 << 20),
            [Descriptor(address: 2 << 20, count: 1)]),
        HostileRing(
            "a table that leaves a region",
            GuestFault("indirect table outside memory", QueueFixture.regionByteCount - 16)
        ) { fixture in
            let last = GuestAddress(QueueFixture.regionByteCount - 16)
            fixture.offerIndirect([chained(1)], count: 32, at: last)
        },
        HostileRing(
            "a direct and an indirect part longer than the queue together",
            GuestFault("descriptor outside memory", good.address)
        ) { fixture in
            let links = (1...QueueFixture.size - 1).map { chained($0) } + [good]
            fixture.offerIndirect(links)
            let outer = Descriptor(
                address: table, count: 16 * UInt32(QueueFixture.size),
                flags: Descriptor.isIndirect)
            fixture.driver.write(chained(1), at: 0)
            fixture.driver.write(outer, at: 1)
        },
    ]
}

@Suite("Hostile rings")
struct HostileRingTests {
    @Test("a broken ring is a fault that says what is broken", arguments: HostileRing.direct)
    func direct(ring: HostileRing) throws {
        let fixture = try QueueFixture()
        ring.prepare(fixture)
        #expect(throws: ring.fault) { try fixture.queue.pop(into: fixture.chain) }
    }

    @Test("a broken table is a fault that says what is broken", arguments: HostileRing.indirect)
    func indirect(ring: HostileRing) throws {
        let fixture = try QueueFixture()
        ring.prepare(fixture)
        #expect(throws: ring.fault) { try fixture.queue.pop(into: fixture.chain) }
    }

    @Test("a table is a fault when indirect descriptors were not negotiated")
    func notNegotiated() throws {
        let fixture = try QueueFixture(features: Feature.version1)
        fixture.driver.addIndirect(
            [fixture.buffer(8, isWritable: true)], table: QueueFixture.buffers)
        fixture.driver.publish()
        #expect(throws: GuestFault("indirect descriptor table", QueueFixture.buffers.rawValue)) {
            try fixture.queue.pop(into: fixture.chain)
        }
    }

    @Test("a descriptor may end with its region, and may be empty")
    func boundaries() throws {
        let fixture = try QueueFixture()
        let last = GuestAddress(QueueFixture.regionByteCount - 8)
        let second = GuestAddress(QueueFixture.secondRegion)
        fixture.driver.add([
            FakeQueue.Buffer(last, 8, isWritable: false),
            FakeQueue.Buffer(second, 0, isWritable: false),
            FakeQueue.Buffer(second, UInt32(QueueFixture.regionByteCount), isWritable: true),
        ])
        fixture.driver.publish()

        let hasPopped = try fixture.queue.pop(into: fixture.chain)

        #expect(hasPopped)
        #expect(fixture.chain.readable.byteCount == 8)
        #expect(fixture.chain.writable.byteCount == QueueFixture.regionByteCount)
    }

    @Test("10,000 random rings are answered or refused, and never trap")
    func fuzz() throws {
        let seed = RandomSeed.make()
        print("ring fuzz seed \(seed)")
        var fuzzer = RingFuzzer(seed: seed)
        let outcomes = try (0..<10_000).map { _ in try fuzzer.run() }
        // Requests that are whole and requests that are broken both occur, or this tests nothing.
        #expect(outcomes.contains { $0.faulted } && outcomes.contains { $0.served > 0 })
    }
}

/// Fills a ring's memory with numbers that are likely to hurt, and serves it.
struct RingFuzzer {
    private static let size: UInt16 = 8
    private static let features = Feature.ring
    private var random: SeededGenerator

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
    }

    mutating func run() throws -> (served: Int, faulted: Bool) {
        let fixture = try QueueFixture(features: Self.features, size: Self.size)
        fill(fixture)
        var served = 0
        do throws(GuestFault) {
            // More turns than a queue has requests: the ring does not change meanwhile.
            while served <= Int(Self.size), try fixture.queue.pop(into: fixture.chain) {
                fixture.queue.push(fixture.chain, written: UInt32(served))
                fixture.queue.notify()
                served += 1
            }
            _ = fixture.queue.armDoorbell()
            return (served, false)
        } catch {
            return (served, true)
        }
    }

    private mutating func fill(_ fixture: QueueFixture) {
        for index in 0..<Self.size {
            fixture.driver.write(descriptor(), at: index)
            fixture.driver.offer(number([index, index, index, 0, 7, 8, 0xffff]))
        }
        var table = ByteBuilder()
        for _ in 0..<16 { table.append(bytes: descriptor().bytes) }
        _ = fixture.memory.copyIn(table.bytes, at: QueueFixture.buffers)
        fixture.driver.setInterruptEvent(UInt16.random(in: .min ... .max, using: &random))
        fixture.driver.publish(index: number([1, 2, 8, 8, 8, 9, 0xffff, 0x8000]))
    }

    private mutating func descriptor() -> FakeQueue.Descriptor {
        let table = QueueFixture.buffers.rawValue
        let end = QueueFixture.regionByteCount
        return FakeQueue.Descriptor(
            address: number([
                table, table, table, table + 1, 0, 4096, end - 8, end, 2 << 20, 4 << 20, .max,
                .max - 15, random.next(),
            ]),
            count: number([8, 8, 8, 16, 32, 128, 144, 0, 1, 17, .max, .max - 15, 1 << 31]),
            flags: number([0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7, 0xffff]),
            next: number([0, 1, 2, 3, 4, 5, 6, 7, 8, 0xffff]))
    }

    private mutating func number<Value>(_ choices: [Value]) -> Value {
        choices[Int.random(in: choices.indices, using: &random)]
    }
}
