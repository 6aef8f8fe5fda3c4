import Foundation
import Testing
import VMMBase
import VMMHost
import VMMStorage
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

/// What the specification calls the answers (VirtIO 1.3, 5.2.6).
private enum Status {
    static let ok: UInt8 = 0
    static let ioError: UInt8 = 1
    static let unsupported: UInt8 = 2
}

/// Transfers run with each engine.
@Suite("VirtIOBlock")
struct VirtIOBlockTests {
    private static let engines: [DiskEngineKind] = [.ring, .aio, .synchronous]

    @Test(
        "a hostile driver gets a fault or an answer",
        arguments: VirtIODeviceContract.Scenario.allCases, engines)
    func contract(scenario: VirtIODeviceContract.Scenario, engine: DiskEngineKind) throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("disk")
        try Data(count: 4096).write(to: URL(filePath: path))
        let contract = VirtIODeviceContract {
            // Read-only, so that the device before and after can hold the image's lock at once.
            var options = DiskOptions()
            options.image.isReadOnly = true
            options.engine = engine
            return VirtIOBlock(
                id: "_disk0", disk: try Disk(path: path, options), queueSizes: [128, 64],
                serial: nil, clock: ManualClock())
        }
        #expect(try contract.violations(scenario) == [])
    }

    // MARK: configuration

    @Test("the configuration tells the size in sectors, the limits and write-back")
    func configuration() throws {
        let fixture = try BlockFixture(
            features: Feature.version1 | BlockFixture.Bit.flush, tail: 511)
        let bytes = fixture.device.configuration
        // Offsets of VirtIO 1.3, 5.2.4: capacity, seg_max, blk_size, writeback, num_queues.
        #expect(bytes.count == 60)
        #expect(bytes[0..<8] == [64, 0, 0, 0, 0, 0, 0, 0])
        #expect(bytes[12..<16] == [126, 0, 0, 0])
        #expect(bytes[20..<24] == [0, 2, 0, 0])
        #expect(bytes[32] == 1)
        #expect(bytes[34..<36] == [1, 0])
    }

    @Test("a read-only disk says so and offers neither discard nor write-zeros")
    func readOnlyFeatures() throws {
        let writable = try BlockFixture().device.offeredFeatures
        let fixture = try BlockFixture(isReadOnly: true)
        // Bit 5 is RO, 13 DISCARD, 14 WRITE_ZEROES.
        #expect(writable & (1 << 5 | 1 << 13 | 1 << 14) == 1 << 13 | 1 << 14)
        #expect(fixture.device.offeredFeatures & (1 << 5 | 1 << 13 | 1 << 14) == 1 << 5)
    }

    // MARK: transfers

    @Test("a read over several buffers gets the disk's bytes", arguments: engines)
    func reads(engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        let buffers = [fixture.driver.writable(100), fixture.driver.writable(924)]
        let answer = try fixture.perform(fixture.header(0, sector: 7), buffers)
        let bytes = buffers.flatMap { fixture.driver.contents($0) }
        #expect(answer == (Status.ok, 1025))
        #expect(bytes == Array(repeating: 7, count: 512) + Array(repeating: 8, count: 512))
    }

    @Test("a write reaches the image, and the last sector of it", arguments: engines)
    func writes(engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        let data = fixture.driver.readable(Array(repeating: 0x77, count: 512))
        let answer = try fixture.perform(fixture.header(1, sector: 63), [data])
        #expect(answer == (Status.ok, 1))
        #expect(try fixture.image.suffix(512) == ArraySlice(Array(repeating: 0x77, count: 512)))
        #expect(try fixture.image.count == 64 * 512)
    }

    @Test("a header that is split over descriptors counts as one", arguments: engines)
    func splitHeader(engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        let header = fixture.header(0, sector: 3)
        let status = fixture.statusByte()
        let data = fixture.driver.writable(512)
        let pieces = [header[0..<1], header[1..<9], header[9..<16]].map {
            fixture.driver.readable(Array($0))
        }
        fixture.queue.addIndirect(
            pieces + [data, status], table: fixture.driver.writable(128).address)
        _ = try fixture.complete()
        #expect(fixture.driver.contents(status) == [Status.ok])
        #expect(fixture.driver.contents(data) == Array(repeating: 3, count: 512))
    }

    @Test("a header and its data may share a descriptor, and data and status another")
    func sharedDescriptors() throws {
        let fixture = try BlockFixture()
        let data = Array(repeating: UInt8(0x31), count: 512)
        let status = fixture.statusByte()
        fixture.queue.add([
            fixture.driver.readable(fixture.header(1, sector: 2) + data), status,
        ])
        _ = try fixture.complete()
        let answer = fixture.driver.buffer(513, isWritable: true)
        fixture.queue.add([fixture.driver.readable(fixture.header(0, sector: 2)), answer])
        _ = try fixture.complete()
        #expect(fixture.driver.contents(status) == [Status.ok])
        #expect(fixture.driver.contents(answer) == data + [Status.ok])
    }

    /// Sector and byte count of transfers that lie outside the disk, or are no whole sectors.
    private static let badTransfers: [(UInt64, UInt32)] = [
        (64, 512), (63, 1024), (UInt64.max, 512), (UInt64.max / 512, 512),
        // A product of sector and 512 that wraps to 0.
        (1 << 55, 512), (0, 511), (0, 513), (0, 0), (64, 0),
    ]

    @Test(
        "a transfer outside the disk or of no whole sectors is an I/O error",
        arguments: [0, 1] as [UInt32], badTransfers)
    func badTransfer(type: UInt32, transfer: (sector: UInt64, count: UInt32)) throws {
        let fixture = try BlockFixture()
        let before = try fixture.image
        let data = fixture.driver.buffer(transfer.count, isWritable: type == 0)
        let answer = try fixture.perform(fixture.header(type, sector: transfer.sector), [data])
        #expect(answer == (Status.ioError, 1))
        #expect(try fixture.image == before)
    }

    @Test("a write to a read-only disk is an I/O error")
    func readOnly() throws {
        let fixture = try BlockFixture(isReadOnly: true)
        let data = fixture.driver.readable(Array(repeating: 1, count: 512))
        let refused = [
            try fixture.perform(fixture.header(1), [data]).status,
            try fixture.perform(
                fixture.header(11), [fixture.driver.readable(fixture.segment(0, 1))]
            ).status,
            try fixture.perform(
                fixture.header(13), [fixture.driver.readable(fixture.segment(0, 1))]
            ).status,
        ]
        #expect(refused == [Status.ioError, Status.ioError, Status.ioError])
    }

    @Test("a file cut behind our back is an I/O error, not a wait for ever", arguments: engines)
    func truncatedFile(engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        try fixture.truncateImage(to: 512 + 100)
        let answers = [
            try fixture.perform(fixture.header(0, sector: 0), [fixture.driver.writable(512)]),
            try fixture.perform(fixture.header(0, sector: 1), [fixture.driver.writable(512)]),
            try fixture.perform(fixture.header(0, sector: 9), [fixture.driver.writable(512)]),
        ]
        #expect(answers.map(\.status) == [Status.ok, Status.ioError, Status.ioError])
    }

    @Test("a disk grows while it runs, and transfers of more than 32 MiB are I/O errors")
    func hugeTransfer() throws {
        let fixture = try BlockFixture()
        let grown = try EventFD()
        fixture.disk.resize(to: 128 << 20) { error in if error == nil { grown.signal() } }
        #expect(grown.descriptor.isReady(.readable, waitingMilliseconds: 10_000))
        #expect(fixture.device.configuration[0..<8] == [0, 0, 4, 0, 0, 0, 0, 0])

        // The same 512 KiB again and again.
        let page = fixture.driver.writable(512 << 10)
        let fits = try fixture.perform(fixture.header(0), Array(repeating: page, count: 64))
        let huge = try fixture.perform(fixture.header(0), Array(repeating: page, count: 65))

        #expect(fits == (Status.ok, 32 << 20 | 1))
        #expect(huge == (Status.ioError, 1))
    }

    @Test("a disk that keeps its room neither offers nor does a discard")
    func keepsRoom() throws {
        let fixture = try BlockFixture { $0.isSparse = false }
        let segment = fixture.driver.readable(fixture.segment(0, 1))
        #expect(fixture.device.offeredFeatures & 1 << 13 == 0)
        #expect(try fixture.perform(fixture.header(11), [segment]).status == Status.unsupported)
    }

    @Test("a driver that resets again and again leaves no counters behind")
    func resets() throws {
        let fixture = try BlockFixture()
        _ = try fixture.perform(fixture.header(0), [fixture.driver.writable(512)])
        for _ in 0..<100 {
            fixture.device.quiesce()
            try fixture.driver.activate()
        }
        #expect(fixture.disk.statistics.readOperations == 1)
        #expect(fixture.disk.counterCount == 1)
    }

    // MARK: other requests

    @Test("a flush is answered", arguments: engines)
    func flush(engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        #expect(try fixture.perform(fixture.header(4)) == (Status.ok, 1))
    }

    @Test("GET_ID gives twenty bytes, and an error where they do not fit")
    func identifier() throws {
        let fixture = try BlockFixture()
        let room = fixture.driver.writable(20)
        let good = try fixture.perform(fixture.header(8), [room])
        let bad = try fixture.perform(fixture.header(8), [fixture.driver.writable(19)])
        #expect(good == (Status.ok, 21))
        #expect(
            fixture.driver.contents(room) == Array("serial".utf8) + Array(repeating: 0, count: 14))
        #expect(bad == (Status.ioError, 1))
    }

    @Test("without a serial number the file's identity stands for it")
    func defaultIdentifier() throws {
        let fixture = try BlockFixture(serial: nil)
        let room = fixture.driver.writable(20)
        _ = try fixture.perform(fixture.header(8), [room])
        #expect(fixture.driver.contents(room).first != 0)
    }

    @Test("a request of unknown type is unsupported", arguments: [2, 3, 5, 14, .max] as [UInt32])
    func unknownType(type: UInt32) throws {
        let fixture = try BlockFixture()
        #expect(try fixture.perform(fixture.header(type)) == (Status.unsupported, 1))
    }

    @Test(
        "discard and write-zeros read as zeros afterwards", arguments: [11, 13] as [UInt32], engines
    )
    func zeroes(type: UInt32, engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        let segment = fixture.driver.readable(fixture.segment(8, 8))
        let answer = try fixture.perform(fixture.header(type), [segment])
        let image = try fixture.image
        #expect(answer == (Status.ok, 1))
        #expect(image[8 * 512..<16 * 512].allSatisfy { $0 == 0 })
        #expect(image[8 * 512 - 1] == 7 && image[16 * 512] == 16)
        #expect(image.count == 64 * 512)
    }

    @Test("write-zeros may unmap where the driver allows it", arguments: engines)
    func unmaps(engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        let segment = fixture.driver.readable(fixture.segment(0, 64, flags: 1))
        let answer = try fixture.perform(fixture.header(13), [segment])
        #expect(answer == (Status.ok, 1))
        #expect(try fixture.image == Array(repeating: 0, count: 64 * 512))
    }

    @Test(
        "unknown flags, and UNMAP on a discard, are unsupported",
        arguments: [(11, 1), (11, 2), (13, 2), (13, 0xffff_ffff)] as [(UInt32, UInt32)])
    func badFlags(type: UInt32, flags: UInt32) throws {
        let fixture = try BlockFixture()
        let segment = fixture.driver.readable(fixture.segment(0, 1, flags: flags))
        #expect(try fixture.perform(fixture.header(type), [segment]).status == Status.unsupported)
    }

    @Test(
        "a range outside the disk, an empty and an endless one are I/O errors",
        arguments: [11, 13] as [UInt32],
        [(64, 1), (63, 2), (0, 0), (.max, 1), (1 << 55, 1), (0, .max)] as [(UInt64, UInt32)])
    func badRange(type: UInt32, range: (sector: UInt64, count: UInt32)) throws {
        let fixture = try BlockFixture()
        let segment = fixture.driver.readable(fixture.segment(range.sector, range.count))
        #expect(try fixture.perform(fixture.header(type), [segment]).status == Status.ioError)
    }

    @Test(
        "a discard of several segments, or of half a one, is an I/O error",
        arguments: [0, 8, 15, 17, 32])
    func badSegments(count: Int) throws {
        let fixture = try BlockFixture()
        let segment = fixture.driver.readable(Array(repeating: 0, count: count))
        #expect(try fixture.perform(fixture.header(11), [segment]).status == Status.ioError)
    }

    @Test("more than the device said it takes is an I/O error", arguments: [11, 13] as [UInt32])
    func tooLong(type: UInt32) throws {
        let fixture = try BlockFixture()
        let grown = DispatchSemaphore(value: 0)
        fixture.disk.resize(to: 8 << 30) { _ in grown.signal() }
        grown.wait()
        let most: UInt32 = type == 11 ? 8_388_607 : 32768
        for (count, status) in [(most, Status.ok), (most + 1, Status.ioError)] {
            let segment = fixture.driver.readable(fixture.segment(0, count))
            #expect(try fixture.perform(fixture.header(type), [segment]).status == status)
        }
    }

    // MARK: faults

    @Test(
        "a request without header or status is a fault, and a reset mends the device",
        arguments: engines)
    func noStatus(engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        fixture.queue.add([fixture.driver.readable(fixture.header(4))])
        #expect(throws: GuestFault.self) { try fixture.driver.ring(0) }
        fixture.device.quiesce()
        try fixture.driver.activate()
        fixture.queue.add([fixture.driver.readable([1, 2, 3]), fixture.statusByte()])
        #expect(throws: GuestFault.self) { try fixture.driver.ring(0) }
        fixture.device.quiesce()
        try fixture.driver.activate()
        #expect(try fixture.perform(fixture.header(4)).status == Status.ok)
    }

    // MARK: many requests

    @Test("a whole queue in flight comes back, each request with its own bytes", arguments: engines)
    func manyInFlight(engine: DiskEngineKind) throws {
        // 42 requests of three descriptors fill a queue of 128.
        let count = 42
        let fixture = try BlockFixture(engine: engine)
        let requests = (0..<count).map { index in
            let data = fixture.driver.writable(512)
            let status = fixture.statusByte()
            fixture.queue.add([
                fixture.driver.readable(fixture.header(0, sector: UInt64(index))), data, status,
            ])
            return (data, status)
        }
        let done = try fixture.complete(count)
        #expect(Set(done.map(\.head)) == Set((0..<count).map { UInt32(3 * $0) }))
        #expect(
            requests.map { fixture.driver.contents($0.0)[511] } == (0..<count).map { UInt8($0) })
        #expect(requests.allSatisfy { fixture.driver.contents($0.1) == [Status.ok] })
    }

    @Test("a driver that offers without end gets its queue's worth, then others have their turn")
    func budget() throws {
        let fixture = try BlockFixture(
            features: Feature.version1, queueSize: 4)
        let status = fixture.statusByte()
        // Of unknown type: answered on the spot, whatever the engine.
        let header = fixture.driver.readable(fixture.header(99))
        for _ in 0..<2 {
            fixture.queue.recycle()
            fixture.queue.add([header, status])
            fixture.queue.add([header, status])
        }
        try fixture.driver.ring(0)
        let first = fixture.queue.takeUsed().count
        #expect(first == 4)
        #expect(fixture.queue.doorbell.clear())
    }

    @Test("quiesce answers all that is in flight, and the queue is silent then", arguments: engines)
    func quiesce(engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine)
        let buffer = fixture.driver.writable(32 * 512)
        let statuses = (0..<32).map { _ in
            let status = fixture.statusByte()
            fixture.queue.add([fixture.driver.readable(fixture.header(0)), buffer, status])
            return status
        }
        try fixture.driver.ring(0)
        fixture.device.quiesce()
        #expect(fixture.queue.takeUsed().count == 32)
        #expect(statuses.allSatisfy { fixture.driver.contents($0) == [Status.ok] })
        #expect(fixture.queue.interrupt.count > 0)
        #expect(fixture.device.wakeSources.isEmpty)
    }

    // MARK: write-through

    @Test(
        "without FLUSH, and when switched, a write is flushed before its answer",
        arguments: [0, BlockFixture.Bit.writebackSwitch], engines)
    func writeThrough(feature: UInt64, engine: DiskEngineKind) throws {
        let fixture = try BlockFixture(engine: engine, features: Feature.version1 | feature)
        var configuration = fixture.device.configuration
        configuration[32] = 0
        fixture.device.configurationWritten(configuration)
        let data = fixture.driver.readable(Array(repeating: 9, count: 1024))
        let answer = try fixture.perform(fixture.header(1, sector: 5), [data])
        #expect(fixture.device.configuration[32] == 0)
        #expect(answer == (Status.ok, 1))
        #expect(try fixture.image[5 * 512..<7 * 512].allSatisfy { $0 == 9 })
    }

    @Test("a driver that did not take the switch cannot use it, and a reset switches back")
    func writebackSwitch() throws {
        let fixed = try BlockFixture(
            features: Feature.version1 | BlockFixture.Bit.flush)
        let switching = try BlockFixture(
            features: Feature.version1 | BlockFixture.Bit.writebackSwitch)
        var configuration = fixed.device.configuration
        configuration[32] = 0
        fixed.device.configurationWritten(configuration)
        switching.device.configurationWritten(configuration)
        let switched = switching.device.configuration[32]
        switching.device.quiesce()
        #expect(fixed.device.configuration[32] == 1)
        #expect(switched == 0)
        #expect(switching.device.configuration[32] == 1)
    }

    @Test("a configuration that is too short changes nothing")
    func shortConfiguration() throws {
        let fixture = try BlockFixture(
            features: Feature.version1 | BlockFixture.Bit.writebackSwitch)
        fixture.device.configurationWritten([])
        #expect(fixture.device.configuration[32] == 1)
    }
}
