import Synchronization
import Testing
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
