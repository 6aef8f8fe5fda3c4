import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// A queue of the packed format and its driver.
struct PackedFixture {
    static let features =
        Feature.version1 | Feature.indirectDescriptors | Feature.packedRing
    static let withEvents = features | Feature.eventIndex

    let base: QueueFixture
    let driver: FakePackedQueue
    var queue: VirtQueue { base.queue }

    init(_ features: UInt64 = features, size: UInt16 = QueueFixture.size) throws {
        base = try QueueFixture(features: features, size: size)
        driver = try #require(base.driver as? FakePackedQueue)
    }

    /// Offers a request of `count` descriptors.
    @discardableResult
    func offer(_ count: Int = 1) -> UInt16 {
        let buffer = base.buffer(8, isWritable: true)
        let id = driver.add(Array(repeating: buffer, count: count))
        driver.publish()
        return id
    }
}

@Suite("PackedRing")
struct PackedRingTests {
    // MARK: order

    @Test("requests go back in the device's order, each over as many slots as it took")
    func order() throws {
        let fixture = try PackedFixture()
        let chains = try fixture.queue.makeChains(3)
        for count in [2, 3, 1] { fixture.offer(count) }

        let popped = try chains.map { try fixture.queue.pop(into: $0) }
        let isEmpty = try !fixture.queue.pop(into: fixture.base.chain)
        for index in [2, 0, 1] { fixture.queue.push(chains[index], written: UInt32(index)) }

        #expect(popped == [true, true, true] && isEmpty)
        #expect(chains.map(\.head) == [0, 1, 2])
        #expect(chains.map(\.writable.byteCount) == [16, 24, 8])
        #expect(fixture.driver.takeUsed().map(\.head) == [2, 0, 1])
        #expect(!fixture.queue.hasAvailable)
    }

    @Test("a chain gives its readable and its writable memory apart, in order")
    func chain() throws {
        let fixture = try PackedFixture()
        _ = fixture.base.memory.copyIn([1, 2, 3, 4], at: QueueFixture.buffers)
        fixture.driver.add([
            fixture.base.buffer(1, isWritable: false, offset: 2),
            fixture.base.buffer(2, isWritable: false),
            fixture.base.buffer(32, isWritable: true, offset: 64),
        ])
        fixture.driver.publish()

        let hasPopped = try fixture.queue.pop(into: fixture.base.chain)
        var bytes: [UInt8] = []
        fixture.base.chain.readable.copyOut(into: &bytes)

        #expect(hasPopped)
        #expect(bytes == [3, 1, 2])
        #expect(fixture.base.chain.writable.byteCount == 32)
    }

    @Test("of a table all entries count, in order, and it takes one slot")
    func indirect() throws {
        let fixture = try PackedFixture()
        let table = GuestAddress(QueueFixture.buffers.rawValue + 4097)
        fixture.driver.addIndirect(
            [
                fixture.base.buffer(8, isWritable: false),
                fixture.base.buffer(16, isWritable: true),
            ], table: table)
        fixture.driver.publish()

        let hasPopped = try fixture.base.serveOne()

        #expect(hasPopped)
        #expect(fixture.base.chain.readable.byteCount == 8)
        #expect(fixture.base.chain.writable.byteCount == 16)
        #expect(fixture.driver.takeUsed().map(\.written) == [1])
        #expect(fixture.queue.position.used == 0x8001)
    }

    @Test("a chain that is not published yet is not there")
    func unpublished() throws {
        let fixture = try PackedFixture()
        fixture.driver.add([
            fixture.base.buffer(8, isWritable: true), fixture.base.buffer(8, isWritable: true),
        ])
        #expect(try !fixture.base.serveOne())
    }

    @Test(
        "any size works, lap after lap, with requests of every length",
        arguments: [1, 2, 3, 7, 8, 12, 100, 256] as [UInt16])
    func laps(size: UInt16) throws {
        let fixture = try PackedFixture(PackedFixture.withEvents, size: size)
        var lost = 0
        for round in 0..<2000 {
            let id = fixture.offer(1 + round % Int(min(size, 5)))
            let isServed = try fixture.base.serveOne()
            let completion = fixture.driver.takeUsed()
            if !isServed || completion.map(\.head) != [UInt32(id)] { lost += 1 }
        }
        #expect(lost == 0)
        #expect(try !fixture.base.serveOne())
    }

    @Test("a full ring of the largest size goes round twice")
    func largest() throws {
        let range = try #require(GuestRange(start: GuestAddress(0), count: 2 << 20))
        let memory = try GuestMemory(ranges: [range], usesHugePages: false)
        let driver = try FakePackedQueue(memory: memory, base: GuestAddress(4096), size: 32768)
        let queue = try VirtQueue(
            driver.layout, memory: memory, features: PackedFixture.features,
            interrupt: driver.interrupt, doorbell: driver.doorbell)
        let chain = try queue.makeChains(1)[0]
        let buffer = FakeQueue.Buffer(GuestAddress(1 << 20), 8, isWritable: true)
        var served = 0
        for _ in 0..<2 {
            driver.add(Array(repeating: buffer, count: 32768))
            driver.publish()
            served += try queue.pop(into: chain) ? 1 : 0
            queue.push(chain, written: 8)
            served += driver.takeUsed().count
        }
        #expect(served == 4)
    }

    // MARK: interrupts

    @Test("one interrupt tells of all that was pushed, none of nothing")
    func interrupts() throws {
        let fixture = try PackedFixture()
        for _ in 0..<3 { fixture.offer() }

        fixture.queue.notify()
        for _ in 0..<3 { _ = try fixture.base.serveOne() }
        fixture.queue.notify()
        fixture.queue.notify()

        #expect(fixture.driver.interrupt.count == 1)
    }

    @Test("a driver that disables interrupts gets none", arguments: [0, Feature.eventIndex])
    func suppressed(events: UInt64) throws {
        let fixture = try PackedFixture(PackedFixture.features | events)
        fixture.driver.suppressInterrupts(true)
        fixture.offer()

        _ = try fixture.base.serveOne()
        fixture.queue.notify()

        #expect(fixture.driver.interrupt.count == 0)
    }

    @Test("an event at a slot needs its feature, or it is an interrupt like any other")
    func eventWithoutFeature() throws {
        let fixture = try PackedFixture()
        fixture.driver.setInterruptEvent(7)
        fixture.offer()
        _ = try fixture.base.serveOne()
        fixture.queue.notify()
        #expect(fixture.driver.interrupt.count == 1)
    }

    /// Three slots of eight are pushed, in the lap whose counter is 1 (bit 15).
    @Test(
        "the interrupt comes when a slot that was pushed is the event",
        arguments: zip(
            [0x8000, 0x8001, 0x8002, 0x8003, 0x8007, 0, 2, 7, 0x7fff, 0xffff],
            [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]))
    func event(event: UInt16, expected: Int) throws {
        let fixture = try PackedFixture(PackedFixture.withEvents)
        fixture.driver.setInterruptEvent(event)
        for _ in 0..<3 { fixture.offer() }

        for _ in 0..<3 { _ = try fixture.base.serveOne() }
        fixture.queue.notify()

        #expect(fixture.driver.interrupt.count == expected)
    }

    /// Slots 6 and 7 of the first lap, 0 and 1 of the second.
    @Test(
        "events work across the end of the ring",
        arguments: zip([0x8005, 0x8006, 0x8007, 0, 1, 2, 0x8000], [0, 1, 1, 1, 1, 0, 0]))
    func eventAcrossLaps(event: UInt16, expected: Int) throws {
        let fixture = try PackedFixture(PackedFixture.withEvents)
        fixture.driver.suppressInterrupts(true)
        for _ in 0..<6 {
            fixture.offer()
            _ = try fixture.base.serveOne()
            _ = fixture.driver.takeUsed()
        }
        fixture.queue.notify()

        fixture.driver.setInterruptEvent(event)
        for _ in 0..<4 {
            fixture.offer()
            _ = try fixture.base.serveOne()
        }
        fixture.queue.notify()

        #expect(fixture.driver.interrupt.count == expected)
    }

    // MARK: doorbells

    @Test("arming finds the request that came while the doorbell was suppressed")
    func doorbellRace() throws {
        let fixture = try PackedFixture()
        fixture.queue.suppressDoorbell()
        let isSuppressed = fixture.driver.isDoorbellSuppressed
        fixture.offer()

        let hasMore = fixture.queue.armDoorbell()
        _ = try fixture.base.serveOne()

        #expect(isSuppressed && hasMore)
        #expect(!fixture.queue.armDoorbell())
        #expect(fixture.driver.doorbellEvents == .enable)
    }

    @Test("with events the doorbell is armed for the next slot, and its lap")
    func doorbellEvent() throws {
        let fixture = try PackedFixture(PackedFixture.withEvents, size: 2)
        fixture.offer()
        _ = try fixture.base.serveOne()
        let hasMore = fixture.queue.armDoorbell()
        let first = fixture.driver.doorbellEvent
        _ = fixture.driver.takeUsed()
        fixture.offer()
        _ = try fixture.base.serveOne()
        _ = fixture.queue.armDoorbell()

        #expect(!hasMore && first == 0x8001)
        #expect(fixture.driver.doorbellEvent == 0)
        #expect(fixture.driver.doorbellEvents == .atDescriptor)
    }

    // MARK: position

    @Test(
        "a queue goes on where another one stopped",
        arguments: [0, Feature.packedRing], [1, 8, 11])
    func position(format: UInt64, served: Int) throws {
        let features = Feature.version1 | Feature.indirectDescriptors | format
        let fixture = try QueueFixture(features: features)
        for _ in 0..<served {
            fixture.driver.recycle()
            fixture.driver.add([fixture.buffer(8, isWritable: true)])
            fixture.driver.publish()
            _ = try fixture.serveOne()
            _ = fixture.driver.takeUsed()
        }
        let next = try VirtQueue(
            fixture.driver.layout, memory: fixture.memory, features: features,
            interrupt: fixture.driver.interrupt, doorbell: fixture.driver.doorbell,
            from: fixture.queue.position)
        fixture.driver.recycle()
        let head = fixture.driver.add([fixture.buffer(8, isWritable: true)])
        fixture.driver.publish()

        let hasPopped = try next.pop(into: fixture.chain)
        next.push(fixture.chain, written: 8)

        #expect(hasPopped)
        #expect(fixture.driver.takeUsed().map(\.head) == [UInt32(head)])
    }

    @Test(
        "a position outside the ring is a fault",
        arguments: [(8, 0x8000), (0x8000, 8), (0xffff, 0xffff), (0x8000, 0x8001)]
            as [(UInt16, UInt16)])
    func badPosition(available: UInt16, used: UInt16) throws {
        let fixture = try PackedFixture()
        #expect(throws: GuestFault("queue position outside the ring", UInt64(available))) {
            try VirtQueue(
                fixture.driver.layout, memory: fixture.base.memory,
                features: PackedFixture.features, interrupt: fixture.driver.interrupt,
                doorbell: fixture.driver.doorbell,
                from: VirtQueue.Position(available: available, used: used))
        }
    }

    // MARK: layout

    @Test("no descriptors, and more than 32768, are a fault", arguments: [0, 32769, 0xffff])
    func badSizes(size: UInt16) throws {
        var layout = try PackedFixture().driver.layout
        layout.size = size
        #expect(throws: GuestFault("queue size is not from 1 to 32768", UInt64(size))) {
            try make(layout)
        }
    }

    @Test(
        "areas that are misaligned or outside memory are a fault",
        arguments: [0x1001, 0x1002, 1 << 21, (1 << 20) - 2, .max, .max & ~15] as [UInt64])
    func badAreas(address: UInt64) throws {
        let good = try PackedFixture().driver.layout
        var ring = good
        var driver = good
        var device = good
        ring.descriptors = GuestAddress(address)
        driver.driverArea = GuestAddress(address)
        device.deviceArea = GuestAddress(address)
        #expect(throws: GuestFault("descriptor ring outside memory", address)) { try make(ring) }
        #expect(throws: GuestFault("driver events outside memory", address)) { try make(driver) }
        #expect(throws: GuestFault("device events outside memory", address)) { try make(device) }
    }

    private func make(_ layout: VirtQueue.Layout) throws -> VirtQueue {
        try VirtQueue(
            layout, memory: QueueFixture.makeMemory(), features: PackedFixture.features,
            interrupt: FakeQueue.Interrupt(), doorbell: EventFD())
    }
}
