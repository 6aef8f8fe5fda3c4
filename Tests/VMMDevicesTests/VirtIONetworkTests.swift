import Testing
import VMMBase
import VMMHost
import VMMNetwork
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

/// Feature bits (VirtIO 1.3, 5.1.3).
private enum Bit {
    static let guestChecksum: UInt64 = 1 << 1
    static let guestTCP4: UInt64 = 1 << 7
    static let guestUDP: UInt64 = 1 << 10
    static let mergeable: UInt64 = 1 << 15
}

@Suite("VirtIONetwork")
struct VirtIONetworkTests {
    private enum Queue {
        static let receive = 0
        static let transmit = 1
    }

    private static let headerCount = 12
    private static let all = NetworkOffloads(checksum: true, tcp: true, udp: true)

    private static func makeDevice(
        _ backend: any FrameBackend, offloads: NetworkOffloads = all, queueSize: UInt16 = 256
    ) throws -> VirtIONetwork {
        VirtIONetwork(
            id: "_net0", backends: [backend],
            VirtIONetwork.Parameters(
                mac: try #require(MACAddress("02:11:22:33:44:55")), offloads: offloads,
                queueSize: queueSize))
    }

    private static func makeDriver(
        _ backend: any FrameBackend, features: UInt64 = Bit.mergeable, queueSize: UInt16 = 256
    ) throws -> FakeDriver {
        try FakeDriver(
            try makeDevice(backend, queueSize: queueSize),
            features: Feature.version1 | Feature.indirectDescriptors | features)
    }

    /// A frame with its header, of `count` bytes in all, whose bytes count up.
    private static func frame(_ count: Int) -> [UInt8] {
        Array(repeating: 0, count: headerCount)
            + (0..<count - headerCount).map { UInt8(truncatingIfNeeded: $0) }
    }

    @Test(
        "a hostile driver gets a fault or an answer",
        arguments: VirtIODeviceContract.Scenario.allCases)
    func contract(scenario: VirtIODeviceContract.Scenario) throws {
        let contract = VirtIODeviceContract {
            try Self.makeDevice(try FakeBackend(Array(repeating: Self.frame(100), count: 4)))
        }
        #expect(try contract.violations(scenario) == [])
    }

    // MARK: identity

    @Test("the configuration has the address, a link that is up, and one pair of queues")
    func configuration() throws {
        let device = try Self.makeDevice(try FakeBackend())
        #expect(
            device.configuration == [0x02, 0x11, 0x22, 0x33, 0x44, 0x55, 1, 0, 1, 0, 0, 0])
        #expect(device.queueSizes == [256, 256, 256])
    }

    /// Bits 5, 15, 16, 17 and 21 (MAC, MRG_RXBUF, STATUS, CTRL_VQ, GUEST_ANNOUNCE) are always
    /// there.
    private static let always: UInt64 = 1 << 5 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 21

    @Test(
        "offered features follow the offload options",
        arguments: [
            (NetworkOffloads(checksum: false, tcp: false, udp: false), always),
            (NetworkOffloads(checksum: true, tcp: false, udp: false), always | 0b111),
            (
                NetworkOffloads(checksum: true, tcp: true, udp: false),
                always | 0b111 | 0b111 << 7 | 0b111 << 11
            ),
            (
                NetworkOffloads(checksum: true, tcp: false, udp: true),
                always | 0b111 | 1 << 10 | 1 << 14
            ),
        ])
    func features(offloads: NetworkOffloads, expected: UInt64) throws {
        let device = try Self.makeDevice(try FakeBackend(), offloads: offloads)
        #expect(device.offeredFeatures == expected)
    }

    @Test("a backend that moves whole frames only is offered no offload")
    func noOffloads() throws {
        let backend = try FakeBackend()
        backend.offersOffloads = false
        #expect(try Self.makeDevice(backend).offeredFeatures == Self.always)
    }

    @Test("the link follows the backend's, the end of the machine is its end")
    func link() throws {
        let backend = try FakeBackend()
        let device = try Self.makeDevice(backend)
        var changes = 0
        device.configurationChanged = { changes += 1 }
        backend.isLinkUp = false
        backend.linkChanged?()
        #expect(device.configuration[6...7] == [0, 0])
        #expect(changes == 1)
        device.finish()
        #expect(backend.isFinished)
    }

    @Test("the backend learns what the driver takes, anew at each start")
    func acceptedOffloads() throws {
        let backend = try FakeBackend()
        let driver = try Self.makeDriver(backend, features: Bit.guestChecksum | Bit.guestTCP4)
        driver.device.quiesce()
        try driver.activate()
        #expect(backend.offloads == [[.checksum, .tcp4], [.checksum, .tcp4]])
    }

    // MARK: transmit

    @Test("frames reach the backend whole and in order, and come back with nothing written")
    func transmits() throws {
        let backend = try FakeBackend()
        let driver = try Self.makeDriver(backend)
        let frame = Self.frame(60)
        driver.queues[Queue.transmit].add([
            driver.readable(Array(frame.prefix(12))), driver.readable(Array(frame.dropFirst(12))),
        ])
        driver.queues[Queue.transmit].add([driver.readable(Self.frame(61))])
        try driver.ring(Queue.transmit)
        #expect(backend.sent == [frame, Self.frame(61)])
        #expect(driver.queues[Queue.transmit].takeUsed().map(\.written) == [0, 0])
        #expect(driver.queues[Queue.transmit].interrupt.count == 1)
        #expect(backend.flushCount == 1)
    }

    @Test("a frame without a byte behind its header is a fault", arguments: [0, 1, 11, 12])
    func shortFrames(count: Int) throws {
        let backend = try FakeBackend()
        let driver = try Self.makeDriver(backend)
        driver.queues[Queue.transmit].add([
            driver.readable(Array(repeating: 0, count: count)), driver.writable(8),
        ])
        #expect(throws: GuestFault.self) { try driver.ring(Queue.transmit) }
        #expect(backend.sent.isEmpty)
    }

    @Test("a driver that sends without end gets its queue's worth, then others have their turn")
    func transmitBudget() throws {
        let backend = try FakeBackend()
        let driver = try Self.makeDriver(backend, queueSize: 16)
        let buffer = driver.readable(Self.frame(60))
        for _ in 0..<16 { driver.queues[Queue.transmit].add([buffer]) }
        try driver.ring(Queue.transmit)
        #expect(backend.sent.count == 16)
        #expect(driver.queues[Queue.transmit].doorbell.clear())
    }

    // MARK: receive

    @Test("a frame over several buffers names their number and fills them in order")
    func mergeable() throws {
        let backend = try FakeBackend()
        let driver = try Self.makeDriver(backend)
        // Five buffers of 400 bytes hold the largest frame of 1530 bytes.
        let buffers = (0..<5).map { _ in driver.writable(400) }
        for buffer in buffers { driver.queues[Queue.receive].add([buffer]) }
        backend.arrive([Self.frame(900)])
        try driver.ring(Queue.receive)
        let used = driver.queues[Queue.receive].takeUsed()
        let bytes = buffers.prefix(3).flatMap { driver.contents($0) }
        #expect(used.map(\.written) == [400, 400, 100])
        #expect(used.map(\.head) == [0, 1, 2])
        // num_buffers, the header's last two bytes (5.1.6).
        #expect(bytes[10..<12] == [3, 0])
        #expect(bytes[12..<900] == Self.frame(900)[12...])
        #expect(driver.queues[Queue.receive].interrupt.count == 1)
    }

    @Test("buffers that a frame did not need hold the next one")
    func keepsBuffers() throws {
        let backend = try FakeBackend()
        let driver = try Self.makeDriver(backend)
        for _ in 0..<8 { driver.queues[Queue.receive].add([driver.writable(800)]) }
        backend.arrive((0..<3).map { Self.frame(100 + $0) })
        try driver.ring(Queue.receive)
        let used = driver.queues[Queue.receive].takeUsed()
        #expect(used.map(\.head) == [0, 1, 2])
        #expect(used.map(\.written) == [100, 101, 102])
    }

    @Test("in a long row of frames of all sizes each fills the buffers that come back with it")
    func longRow() throws {
        let backend = try FakeBackend()
        let driver = try Self.makeDriver(backend)
        let queue = driver.queues[Queue.receive]
        let buffers = (0..<16).map { _ in driver.writable(400) }
        for buffer in buffers { queue.add([buffer]) }
        var random = SeededGenerator(seed: 4)
        var wrong: [Int] = []

        // More buffers than a list of them has room for.
        for number in 0..<800 {
            let frame = Self.frame(.random(in: 13...1530, using: &random))
            backend.arrive([frame])
            try driver.ring(Queue.receive)
            let used = queue.takeUsed()
            let bytes = used.flatMap {
                driver.contents(buffers[Int($0.head)], count: $0.written)
            }
            let isWhole = bytes.count == frame.count && bytes[10] == UInt8(used.count)
            if !isWhole || bytes[12...] != frame[12...] { wrong.append(number) }
            for completion in used { queue.offer(UInt16(completion.head)) }
        }

        #expect(wrong.isEmpty)
    }

    @Test("with too few buffers frames wait, and the driver is asked to ring")
    func tooFewBuffers() throws {
        let backend = try FakeBackend([Self.frame(100)])
        let driver = try Self.makeDriver(backend)
        driver.queues[Queue.receive].add([driver.writable(1529)])
        try driver.ring(Queue.receive)
        try driver.settle()
        let before = driver.queues[Queue.receive].takeUsed()
        let isSuppressed = driver.queues[Queue.receive].isDoorbellSuppressed
        driver.queues[Queue.receive].add([driver.writable(64)])
        try driver.ring(Queue.receive)

        #expect(before.isEmpty && !isSuppressed)
        #expect(driver.queues[Queue.receive].takeUsed().map(\.written) == [100])
    }

    @Test("without mergeable buffers a frame takes one buffer and says so")
    func single() throws {
        let backend = try FakeBackend([Self.frame(100), Self.frame(60)])
        let driver = try Self.makeDriver(backend, features: 0)
        let buffers = [driver.writable(1530), driver.writable(1530)]
        for buffer in buffers { driver.queues[Queue.receive].add([buffer]) }
        try driver.ring(Queue.receive)
        #expect(driver.queues[Queue.receive].takeUsed().map(\.written) == [100, 60])
        #expect(driver.contents(buffers[1])[10..<12] == [1, 0])
    }

    @Test(
        "a driver that takes large frames is asked for room for one",
        arguments: [(Bit.mergeable, 1530), (Bit.mergeable | Bit.guestUDP, 65562)]
            as [(UInt64, UInt64)])
    func room(features: UInt64, needed: UInt64) throws {
        let backend = try FakeBackend([Self.frame(100)])
        let driver = try Self.makeDriver(backend, features: features)
        for _ in 0..<100 { driver.queues[Queue.receive].add([driver.writable(1000)]) }
        try driver.ring(Queue.receive)
        // The least multiple of 1000 that holds the largest frame.
        #expect(backend.rooms.first == (needed + 999) / 1000 * 1000)
    }

    @Test("a flood gets its queue's worth of frames, then others have their turn")
    func receiveBudget() throws {
        let backend = try FakeBackend(Array(repeating: Self.frame(60), count: 20))
        let driver = try Self.makeDriver(backend, queueSize: 16)
        let buffer = driver.writable(2048)
        for _ in 0..<16 { driver.queues[Queue.receive].add([buffer]) }
        try driver.ring(Queue.receive)
        #expect(driver.queues[Queue.receive].takeUsed().count == 16)
        #expect(backend.waitingCount == 4)
        #expect(driver.queues[Queue.receive].doorbell.clear())
    }

    @Test(
        "buffers without room, or too small for a header, take no frame and cause no loop",
        arguments: [0, 5] as [UInt32])
    func uselessBuffers(count: UInt32) throws {
        let backend = try FakeBackend([Self.frame(100)])
        let driver = try Self.makeDriver(backend, queueSize: 16)
        for _ in 0..<16 {
            driver.queues[Queue.receive].add([driver.buffer(count, isWritable: true)])
        }
        try driver.ring(Queue.receive)
        #expect(backend.rooms.count <= 16)
    }

    @Test("a reset gives waiting buffers up, and frames arrive in those of the next driver")
    func resets() throws {
        let backend = try FakeBackend()
        let driver = try Self.makeDriver(backend)
        driver.queues[Queue.receive].add([driver.writable(2000)])
        try driver.ring(Queue.receive)
        driver.device.quiesce()
        try driver.activate()
        let buffer = driver.writable(2000)
        driver.queues[Queue.receive].add([buffer])
        backend.arrive([Self.frame(80)])
        try driver.ring(Queue.receive)
        #expect(driver.queues[Queue.receive].takeUsed().map(\.written) == [80])
        #expect(driver.contents(buffer, count: 80)[12...] == Self.frame(80)[12...])
    }
}
