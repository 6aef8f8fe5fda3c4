import Synchronization
import Testing
import VMMBase
import VMMHost
import VMMStorage
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

@Suite("DiskHandle")
struct DiskHandleTests {
    @Test("a drained device has answered all, and works on")
    func draining() throws {
        let fixture = try BlockFixture()
        for round in 0..<2 as Range<UInt64> {
            for sector in 0..<8 as Range<UInt64> {
                fixture.queue.add([
                    fixture.driver.readable(fixture.header(0, sector: 8 * round + sector)),
                    fixture.driver.writable(512), fixture.driver.writable(1),
                ])
            }
            try fixture.driver.ring(0)
            fixture.device.drain()
            #expect(fixture.queue.takeUsed().count == 8)
        }
        let counters = try #require(fixture.device.handle).counters
        #expect(counters.first { $0.name == "read_ops" }?.value == 16)
        #expect(counters.first { $0.name == "read_bytes" }?.value == 16 * 512)
        #expect(counters.count == 10)
    }

    /// Fills the queue with reads and rings; returns how many there are.
    private static func fill(_ fixture: BlockFixture) throws -> Int {
        for _ in 0..<40 {
            fixture.queue.add([
                fixture.driver.readable(fixture.header(0)), fixture.driver.writable(512),
                fixture.driver.writable(1),
            ])
        }
        try fixture.driver.ring(0)
        return 40
    }

    @Test("a driver's resets let nothing past the rate limit, a pause does on credit")
    func limited() throws {
        let clock = ManualClock()
        let fixture = try BlockFixture {
            $0.limiter = RateLimiter(
                bytes: nil, operations: .init(size: 10, refillMilliseconds: 1000), clock: clock)
        }
        var reads: UInt64? {
            fixture.device.handle?.counters.first { $0.name == "read_ops" }?.value
        }
        for round in 0..<20 {
            _ = try Self.fill(fixture)
            if round.isMultiple(of: 2) {
                fixture.device.quiesce()
                try fixture.driver.activate()
            } else {
                fixture.device.quiesce(queue: 0)
                try fixture.driver.activate(queue: 0)
            }
        }
        #expect(reads == 10)

        let count = try Self.fill(fixture)
        fixture.device.drain()
        #expect(fixture.queue.takeUsed().count == count)
        // Four seconds' worth.
        clock.advance(nanoseconds: 3_900_000_000)
        fixture.device.quiesce()
        try fixture.driver.activate()
        _ = try Self.fill(fixture)
        fixture.device.quiesce()
        #expect(reads == 50)
    }

    /// What the disk says to a new size; nil: it took it.
    private static func answer(_ handle: any DeviceHandle, _ byteCount: UInt64) throws -> String? {
        let done = try EventFD()
        let reason = Reason()
        let isAccepted = handle.resize(to: byteCount) { text in
            reason.text.withLock { $0 = text }
            done.signal()
        }
        guard isAccepted else { return "no" }
        _ = done.descriptor.isReady(.readable, waitingMilliseconds: 60_000)
        return reason.text.withLock { $0 }
    }

    private final class Reason: Sendable {
        let text = Mutex<String?>("nothing was answered")
    }

    @Test("a disk takes a new size of whole sectors, unless it is read-only")
    func resizing() throws {
        let fixture = try BlockFixture()
        let handle = try #require(fixture.device.handle)
        #expect(try Self.answer(handle, 1024) == nil)
        #expect(fixture.disk.sectorCount == 2)
        #expect(
            try Self.answer(handle, 1000) == "a disk's size is a multiple of 512 bytes, and not 0")
        #expect(try Self.answer(handle, 0) != nil)
        let fixed = try BlockFixture(isReadOnly: true)
        #expect(try Self.answer(#require(fixed.device.handle), 1024) == "no")
    }
}
