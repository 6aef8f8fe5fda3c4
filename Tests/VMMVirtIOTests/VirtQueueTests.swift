import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

@Suite("VirtQueue")
struct VirtQueueTests {
    // MARK: order

    @Test("requests come in the order of the driver and go back in the order of the device")
    func order() throws {
        let fixture = try QueueFixture()
        let chains = try fixture.queue.makeChains(3)
        for _ in 0..<3 { fixture.driver.add([fixture.buffer(8, isWritable: true)]) }
        fixture.driver.publish()

        let popped = try chains.map { try fixture.queue.pop(into: $0) }
        let isEmpty = try !fixture.queue.pop(into: fixture.chain)
        for index in [2, 0, 1] { fixture.queue.push(chains[index], written: UInt32(index)) }

        #expect(popped == [true, true, true] && isEmpty)
        #expect(chains.map(\.head) == [0, 1, 2])
        #expect(fixture.driver.takeUsed().map(\.head) == [2, 0, 1])
    }

    @Test("a chain gives its readable and its writable memory apart, in order")
    func chain() throws {
        let fixture = try QueueFixture()
        _ = fixture.memory.copyIn([1, 2, 3, 4], at: QueueFixture.buffers)
        fixture.driver.add([
            fixture.buffer(1, isWritable: false, offset: 2), fixture.buffer(2, isWritable: false),
            fixture.buffer(32, isWritable: true, offset: 64),
        ])
        fixture.driver.publish()

        let hasPopped = try fixture.queue.pop(into: fixture.chain)
        var bytes: [UInt8] = []
        fixture.chain.readable.copyOut(into: &bytes)

        #expect(hasPopped)
        #expect(bytes == [3, 1, 2])
        #expect(fixture.chain.writable.byteCount == 32)
    }

    @Test("a chain that is used again forgets what it held")
    func reuse() throws {
        let fixture = try QueueFixture()
        fixture.driver.add([fixture.buffer(8, isWritable: false)])
        fixture.driver.add([fixture.buffer(4, isWritable: true)])
        fixture.driver.publish()

        _ = try fixture.serveOne()
        _ = try fixture.serveOne()

        #expect(fixture.chain.readable.isEmpty)
        #expect(fixture.chain.writable.byteCount == 4)
    }

    @Test("an indirect table is followed, also behind direct descriptors and unaligned")
    func indirect() throws {
        let fixture = try QueueFixture()
        typealias Descriptor = FakeQueue.Descriptor
        let table = GuestAddress(QueueFixture.buffers.rawValue + 4097)
        fixture.driver.add([fixture.buffer(8, isWritable: false)])
        fixture.driver.addIndirect(
            [fixture.buffer(8, isWritable: false), fixture.buffer(16, isWritable: true)],
            table: table)
        // The first descriptor goes on in the one that names the table: one chain of three.
        fixture.driver.write(
            Descriptor(
                address: QueueFixture.buffers.rawValue, count: 8, flags: Descriptor.hasNext,
                next: 1),
            at: 0)
        fixture.driver.publish()

        let hasPopped = try fixture.queue.pop(into: fixture.chain)

        #expect(hasPopped)
        #expect(fixture.chain.readable.byteCount == 16)
        #expect(fixture.chain.writable.byteCount == 16)
    }

    @Test("indices wrap at 65536 without losing a request or its interrupt")
    func wrap() throws {
        // One more than two rounds of the 16-bit index.
        let total = 131_073
        let fixture = try QueueFixture(features: Feature.ring)
        var served = 0
        for index in 0..<total {
            fixture.driver.recycle()
            fixture.driver.setInterruptEvent(UInt16(truncatingIfNeeded: index))
            fixture.driver.add([fixture.buffer(8, isWritable: true)])
            fixture.driver.publish()
            served += try fixture.serveOne() ? 1 : 0
            fixture.queue.notify()
        }

        #expect(served == total)
        #expect(fixture.driver.interrupt.count == total)
        #expect(try !fixture.serveOne())
    }

    // MARK: interrupts

    @Test("one interrupt tells of all that was pushed, none of nothing")
    func interrupts() throws {
        let fixture = try QueueFixture()
        for _ in 0..<3 { fixture.driver.add([fixture.buffer(8, isWritable: true)]) }
        fixture.driver.publish()

        fixture.queue.notify()
        for _ in 0..<3 { _ = try fixture.serveOne() }
        fixture.queue.notify()
        fixture.queue.notify()

        #expect(fixture.driver.interrupt.count == 1)
    }

    @Test("a driver that suppresses interrupts gets none")
    func suppressed() throws {
        let fixture = try QueueFixture()
        fixture.driver.suppressInterrupts(true)
        fixture.driver.add([fixture.buffer(8, isWritable: true)])
        fixture.driver.publish()

        _ = try fixture.serveOne()
        fixture.queue.notify()

        #expect(fixture.driver.interrupt.count == 0)
    }

    @Test(
        "with event index the interrupt comes when the used index passes the event",
        arguments: zip([0, 1, 2, 3, 0xffff], [1, 1, 1, 0, 0]))
    func eventIndex(event: UInt16, expected: Int) throws {
        let fixture = try QueueFixture(features: Feature.ring)
        fixture.driver.setInterruptEvent(event)
        for _ in 0..<3 { fixture.driver.add([fixture.buffer(8, isWritable: true)]) }
        fixture.driver.publish()

        for _ in 0..<3 { _ = try fixture.serveOne() }
        fixture.queue.notify()

        #expect(fixture.driver.interrupt.count == expected)
    }

    @Test("event index works across the wrap of the used index")
    func eventIndexWraps() throws {
        let fixture = try QueueFixture(features: Feature.ring)
        func serve(_ count: Int) throws {
            for _ in 0..<count {
                fixture.driver.recycle()
                fixture.driver.add([fixture.buffer(8, isWritable: true)])
                fixture.driver.publish()
                _ = try fixture.serveOne()
            }
        }
        // An event that the first 65534 do not reach, told of as they are pushed.
        fixture.driver.setInterruptEvent(0xfffe)
        try serve(0xfffe)
        fixture.queue.notify()
        let before = fixture.driver.interrupt.count

        // Used index 65534 to 2, over the event 0 that lies behind the wrap.
        fixture.driver.setInterruptEvent(0)
        try serve(4)
        fixture.queue.notify()

        #expect(before == 0)
        #expect(fixture.driver.interrupt.count == 1)
    }

    // MARK: doorbells

    @Test("arming finds the request that came while the doorbell was suppressed")
    func doorbellRace() throws {
        let fixture = try QueueFixture()
        fixture.queue.suppressDoorbell()
        let isSuppressed = fixture.driver.isDoorbellSuppressed
        fixture.driver.add([fixture.buffer(8, isWritable: true)])
        fixture.driver.publish()

        let hasMore = fixture.queue.armDoorbell()
        _ = try fixture.serveOne()

        #expect(isSuppressed && hasMore)
        #expect(!fixture.queue.armDoorbell())
        #expect(!fixture.driver.isDoorbellSuppressed)
    }

    @Test("with event index the doorbell is armed for the next request and stays quiet else")
    func doorbellEvent() throws {
        let fixture = try QueueFixture(features: Feature.ring)
        fixture.driver.add([fixture.buffer(8, isWritable: true)])
        fixture.driver.publish()

        fixture.queue.suppressDoorbell()
        let before = fixture.driver.doorbellEvent
        _ = try fixture.serveOne()
        let hasMore = fixture.queue.armDoorbell()

        #expect(before == 0 && !hasMore)
        #expect(fixture.driver.doorbellEvent == 1)
        #expect(!fixture.driver.isDoorbellSuppressed)
    }

    @Test("a device that wants another turn raises its own doorbell")
    func serviceAgain() throws {
        let fixture = try QueueFixture()
        fixture.queue.serviceAgain()
        #expect(fixture.driver.doorbell.clear())
    }
}
