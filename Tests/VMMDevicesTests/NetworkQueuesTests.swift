import Testing
import VMMBase
import VMMHost
import VMMNetwork
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

/// Several pairs of queues, the control queue, limits and counters.
@Suite("VirtIONetwork queues")
struct NetworkQueuesTests {
    /// Feature bits (VirtIO 1.3, 5.1.3).
    private enum Bit {
        static let guestChecksum: UInt64 = 1 << 1
        static let controlOffloads: UInt64 = 1 << 2
        static let mtu: UInt64 = 1 << 3
        static let guestTCP4: UInt64 = 1 << 7
        static let mergeable: UInt64 = 1 << 15
        static let control: UInt64 = 1 << 17
        static let announce: UInt64 = 1 << 21
        static let multiqueue: UInt64 = 1 << 22
    }

    private static let features =
        Feature.version1 | Bit.mergeable | Bit.control | Bit.announce

    private struct Scene {
        let backends: [FakeBackend]
        let device: VirtIONetwork
        let driver: FakeDriver

        init(
            pairs: Int, features: UInt64 = NetworkQueuesTests.features,
            change: (inout VirtIONetwork.Parameters) -> Void = { _ in }
        ) throws {
            backends = try (0..<pairs).map { _ in try FakeBackend() }
            var parameters = VirtIONetwork.Parameters(
                mac: try #require(MACAddress("02:11:22:33:44:55")),
                offloads: NetworkOffloads(checksum: true, tcp: true, udp: true), queueSize: 64)
            change(&parameters)
            device = VirtIONetwork(id: "_net0", backends: backends, parameters)
            driver = try FakeDriver(device, features: features)
        }

        /// One command; the device's answer.
        func command(_ bytes: [UInt8], queue: Int) throws -> UInt8? {
            let answer = driver.buffer(1, isWritable: true, bytes: [0xaa])
            driver.queues[queue].recycle()
            driver.queues[queue].add([driver.readable(bytes), answer])
            try driver.ring(queue)
            return driver.contents(answer).first
        }
    }

    private static let frame = [UInt8](repeating: 0, count: 12) + [UInt8](repeating: 7, count: 60)

    @Test("the configuration tells how many pairs there are, and the MTU where it is set")
    func configuration() throws {
        let scene = try Scene(pairs: 3) { $0.mtu = 9000 }

        #expect(scene.device.queueSizes.count == 7)
        #expect(scene.device.configuration[8...] == [3, 0, 0x28, 0x23])
        #expect(scene.device.offeredFeatures & Bit.multiqueue != 0)
        #expect(scene.device.offeredFeatures & Bit.mtu != 0)
        let single = try Scene(pairs: 1).device
        #expect(single.offeredFeatures & (Bit.multiqueue | Bit.mtu) == 0)
    }

    @Test("each pair has a backend of its own; the driver says how many it uses")
    func pairs() throws {
        let scene = try Scene(pairs: 2, features: Self.features | Bit.multiqueue)
        #expect(scene.backends.map(\.isEnabled) == [true, false])

        #expect(try scene.command([4, 0, 2, 0], queue: 4) == 0)
        #expect(scene.backends.map(\.isEnabled) == [true, true])
        scene.driver.queues[3].add([scene.driver.readable(Self.frame)])
        try scene.driver.ring(3)
        scene.driver.queues[2].add([scene.driver.writable(2000)])
        scene.backends[1].arrive([Self.frame])
        try scene.driver.ring(2)

        #expect(scene.backends.map(\.sent.count) == [0, 1])
        #expect(scene.driver.queues[2].takeUsed().map(\.written) == [72])
        #expect(
            scene.device.statistics
                == NetworkStatistics(
                    receivedFrames: 1, receivedBytes: 60, sentFrames: 1, sentBytes: 60))
    }

    @Test("while one queue is reset the others go on, and what it had taken is forgotten")
    func queueReset() throws {
        let scene = try Scene(pairs: 1)
        let driver = scene.driver
        // Taken by the device, which waits for more room.
        driver.queues[0].add([driver.writable(100)])
        try driver.ring(0)

        scene.device.quiesce(queue: 0)
        scene.backends[0].arrive([Self.frame])
        driver.queues[1].add([driver.readable(Self.frame)])
        try driver.ring(1)
        try driver.settle()
        let sent = scene.backends[0].sent.count
        let receive = try driver.activate(queue: 0)
        receive.add([driver.writable(2000)])
        try driver.ring(0)

        #expect(sent == 1)
        #expect(receive.takeUsed().map(\.written) == [72])
        #expect(try scene.command([3, 0], queue: 2) == 0)
    }

    @Test("a number of pairs that there is not is refused", arguments: [0, 3, 255])
    func wrongPairs(count: UInt8) throws {
        let scene = try Scene(pairs: 2, features: Self.features | Bit.multiqueue)
        #expect(try scene.command([4, 0, count, 0], queue: 4) == 1)
        #expect(scene.backends.map(\.isEnabled) == [true, false])
    }

    @Test("a driver without multiqueue has the control queue behind the first pair")
    func controlWithoutMultiqueue() throws {
        let scene = try Scene(pairs: 2)
        #expect(try scene.command([3, 0], queue: 2) == 0)
        #expect(try scene.command([4, 0, 1, 0], queue: 2) == 1)
        try scene.driver.ring(3)
    }

    @Test("the driver switches its offloads, within what was negotiated")
    func offloads() throws {
        let offloads = Bit.guestChecksum | Bit.guestTCP4 | Bit.controlOffloads
        let scene = try Scene(pairs: 1, features: Self.features | offloads)
        func set(_ offloads: UInt64) throws -> UInt8? {
            let bytes = (0..<8).map { UInt8(truncatingIfNeeded: offloads >> (8 * $0)) }
            return try scene.command([5, 0] + bytes, queue: 2)
        }
        #expect(try set(Bit.guestChecksum) == 0)
        #expect(try set(0) == 0)
        #expect(try set(1 << 10) == 1)
        #expect(scene.backends[0].offloads == [[.checksum, .tcp4], [.checksum], []])
    }

    @Test("a driver that switches without end is refused, until it has waited for a while")
    func changeLimit() throws {
        let clock = ManualClock()
        let scene = try Scene(pairs: 2, features: Self.features | Bit.multiqueue) {
            $0.changeLimit = ChangeLimit(pairs: 2, clock: clock)
        }
        func use(_ pairs: Int) throws -> UInt8? {
            try scene.command([4, 0, UInt8(pairs), 0], queue: 4)
        }

        let answers = try (0..<100).map { try use($0 % 2 + 1) }
        // The first asks for what is; then 68 changes, and what is may always be asked for.
        #expect(answers.count { $0 == 0 } == 1 + 68 + 15)
        #expect(scene.backends.map(\.isEnabled) == [true, false])
        #expect(try use(2) == 1)

        clock.advance(nanoseconds: 1_000_000_000)
        #expect(try use(2) == 0)
        #expect(scene.backends.map(\.isEnabled) == [true, true])
    }

    @Test("when the link is back the driver is asked to announce itself until it says that it did")
    func announces() throws {
        let scene = try Scene(pairs: 1)
        var changes = 0
        scene.device.configurationChanged = { changes += 1 }

        scene.backends[0].isLinkUp = false
        scene.backends[0].linkChanged?()
        #expect(scene.device.configuration[6] == 0)
        scene.backends[0].isLinkUp = true
        scene.backends[0].linkChanged?()

        #expect(changes == 2)
        #expect(scene.device.configuration[6] == 3)
        #expect(try scene.command([3, 0], queue: 2) == 0)
        #expect(scene.device.configuration[6] == 1)
    }

    @Test("a machine that goes on announces itself, on a link that is up")
    func announcesResumption() throws {
        let scene = try Scene(pairs: 1)
        var changes = 0
        scene.device.configurationChanged = { changes += 1 }

        scene.device.resumed()
        #expect(changes == 1 && scene.device.configuration[6] == 3)
        #expect(try scene.command([3, 0], queue: 2) == 0)
        scene.backends[0].isLinkUp = false
        scene.device.resumed()
        #expect(changes == 1 && scene.device.configuration[6] == 0)
    }

    @Test(
        "commands that nobody knows are refused, filters are taken, and a fault is a fault",
        arguments: [
            ([0, 0, 1], 0), ([0, 5, 1], 0), ([2, 0, 1, 0], 0), ([], 1), ([4], 1), ([4, 0], 1),
            ([4, 0, 1], 1), ([1, 0], 1), ([9, 9, 9], 1), ([5, 0, 1], 1), ([3, 1], 1),
        ] as [([UInt8], UInt8)])
    func commands(bytes: [UInt8], answer: UInt8) throws {
        let scene = try Scene(pairs: 1)
        let buffers =
            bytes.isEmpty ? [] : [scene.driver.readable(bytes)]
        let status = scene.driver.buffer(1, isWritable: true, bytes: [0xaa])
        scene.driver.queues[2].add(buffers + [status])
        try scene.driver.ring(2)
        #expect(scene.driver.contents(status) == [answer])

        scene.driver.queues[2].add([scene.driver.readable([4, 0])])
        #expect(throws: GuestFault.self) { try scene.driver.ring(2) }
    }

    @Test("a limit holds back one frame and those behind it, in both directions")
    func limits() throws {
        let clock = ManualClock()
        let bucket = RateLimiter.Bucket(size: 2, refillMilliseconds: 1000)
        let scene = try Scene(pairs: 1) { parameters in
            parameters.receiveLimiter = RateLimiter(bytes: nil, operations: bucket, clock: clock)
            parameters.transmitLimiter = RateLimiter(bytes: nil, operations: bucket, clock: clock)
        }
        let driver = scene.driver
        for _ in 0..<5 { driver.queues[1].add([driver.readable(Self.frame)]) }
        for _ in 0..<5 { driver.queues[0].add([driver.writable(2000)]) }
        scene.backends[0].arrive(Array(repeating: Self.frame, count: 5))

        var sent: [Int] = []
        var received: [Int] = []
        for _ in 0..<4 {
            try driver.ring(0)
            try driver.ring(1)
            sent.append(scene.backends[0].sent.count)
            received.append(driver.queues[0].takeUsed().count)
            clock.advance(nanoseconds: 500_000_000)
            for index in scene.device.wakeSources.indices { try scene.device.wake(source: index) }
        }

        // Two at once, then one each half second.
        #expect(sent == [2, 3, 4, 5])
        #expect(received.reduce(0, +) == 5 && received[0] == 2)
        #expect(scene.device.statistics.sentFrames == 5)
    }

    @Test("frames that the backend has no room for wait, and are held to the limit once")
    func noRoom() throws {
        let clock = ManualClock()
        let bucket = RateLimiter.Bucket(size: 4, refillMilliseconds: 1000)
        let scene = try Scene(pairs: 1) { parameters in
            parameters.transmitLimiter = RateLimiter(bytes: nil, operations: bucket, clock: clock)
        }
        let (driver, backend) = (scene.driver, scene.backends[0])
        for _ in 0..<5 { driver.queues[1].add([driver.readable(Self.frame)]) }
        func wake() throws {
            for index in scene.device.wakeSources.indices { try scene.device.wake(source: index) }
        }
        backend.roomCount = 1
        try driver.ring(1)
        // A bell and a false alarm change nothing.
        try driver.ring(1)
        try wake()
        #expect(backend.sent.count == 1 && driver.queues[1].takeUsed().count == 1)

        backend.makeRoom(2)
        try wake()
        #expect(backend.sent.count == 3 && driver.queues[1].takeUsed().count == 2)

        // Four by the limit, the fifth when its time has come.
        backend.makeRoom(10)
        try wake()
        #expect(backend.sent.count == 4)
        clock.advance(nanoseconds: 250_000_000)
        try wake()
        #expect(backend.sent.count == 5 && driver.queues[1].takeUsed().count == 2)
        #expect(scene.device.statistics.sentFrames == 5)
    }
}
