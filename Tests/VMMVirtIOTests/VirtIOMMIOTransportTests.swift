import Testing
import VMMBase
import VMMBus
import VMMHost
import VMMTestSupport
import VMMVirtIO

private typealias Register = MMIODriver.Register

@Suite("VirtIOMMIOTransport")
struct VirtIOMMIOTransportTests {
    private static let needsReset: UInt64 = 64

    let driver: MMIODriver
    let device: ProbeDevice

    init() throws {
        driver = try MMIODriver()
        device = driver.device
    }

    // MARK: identity and features

    @Test("the registers name a device of version 2")
    func identity() {
        #expect(driver.read(Register.magic) == 0x7472_6976)
        #expect(driver.read(Register.version) == 2)
        #expect(driver.read(Register.deviceID) == 4)
        #expect(driver.deviceFeatures == ProbeDevice.offered | Feature.ring)
    }

    @Test("there is no shared memory: its length and place are all ones")
    func sharedMemory() {
        driver.write(Register.sharedMemorySelect, 0)
        let words = (0..<4).map { driver.read(Register.sharedMemory + 4 * UInt64($0)) }
        #expect(words == Array(repeating: 0xffff_ffff, count: 4))
    }

    @Test("offered features with VERSION_1 are accepted and reach the device")
    func accepts() {
        driver.start(ProbeDevice.offered | Feature.ring)
        #expect(device.activations.map(\.features) == [ProbeDevice.offered | Feature.ring])
        #expect(device.activations.map(\.queueCount) == [2])
    }

    @Test(
        "a feature that is not offered, and a missing VERSION_1, clear FEATURES_OK",
        arguments: [
            Feature.version1 | ProbeDevice.foreignFeature, Feature.version1 | 1 << 63, 0,
            Feature.version1 | Feature.packedRing,
        ])
    func refuses(features: UInt64) {
        #expect(!driver.negotiate(features))
        #expect(driver.status == 3)
    }

    @Test("the packed format is there where the machine offers it, and split queues still are")
    func packed() throws {
        for features in [Feature.packedRing, 0] {
            let driver = try MMIODriver(features: Feature.packedRing)
            driver.start(Feature.version1 | features)
            #expect(
                driver.device.queues.compactMap { $0?.isPacked } == [features != 0, features != 0])
        }
    }

    // MARK: queues

    @Test("a queue is fixed once it is ready, and its size has a limit")
    func queueSetUp() {
        driver.negotiate()
        driver.setUp(queue: 1)
        driver.write(Register.queueSize, 4)
        driver.write(Register.descriptors, 0)
        driver.write(Register.status, driver.status | 4)
        driver.settle()
        #expect(driver.read(Register.queueSizeLimit) == UInt64(ProbeDevice.size))
        #expect(driver.read(Register.queueReady) == 1)
        #expect(device.queues.map { $0?.size } == [nil, ProbeDevice.size])
    }

    @Test("a size above the largest is not taken", arguments: [17, 0x1_0010, 0xffff_ffff])
    func sizeTooLarge(size: UInt64) {
        driver.negotiate()
        driver.setUp(queue: 0)
        driver.write(Register.queueReady, 0)
        driver.write(Register.queueSize, size)
        driver.write(Register.queueReady, 1)
        driver.write(Register.status, driver.status | 4)
        driver.settle()
        #expect(device.queues.first??.size == ProbeDevice.size)
    }

    @Test("a queue that does not exist has no size and is never ready", arguments: [2, 0x1_0000])
    func missingQueue(index: UInt64) {
        driver.write(Register.queueSelect, index)
        driver.write(Register.queueReady, 1)
        #expect(driver.read(Register.queueSizeLimit) == 0)
        #expect(driver.read(Register.queueReady) == 0)
    }

    @Test("a queue is taken back before DRIVER_OK, and not from an active device")
    func unready() {
        driver.negotiate()
        driver.setUp(queue: 0)
        driver.write(Register.queueReady, 0)
        let before = driver.read(Register.queueReady)
        driver.setUp(queue: 0)
        driver.write(Register.status, driver.status | 4)
        driver.settle()
        driver.write(Register.queueReady, 0)
        #expect(before == 0)
        #expect(driver.read(Register.queueReady) == 1)
    }

    @Test("a doorbell serves its queue, one that does not exist nobody")
    func rings() {
        driver.start()
        for queue in [1, 2, 0x1_0001, 0xffff_ffff] as [UInt64] {
            driver.write(Register.notify, queue)
        }
        driver.settle()
        #expect(device.serviced == [1])
    }

    @Test("doorbells are bound to one register, by the queue's number, until the reset")
    func boundDoorbells() throws {
        driver.start()
        let addresses = driver.doorbells.addresses
        let values = driver.doorbells.values
        driver.doorbells.event(at: MMIODriver.address + Register.notify, value: 1)?.signal()
        driver.settle()
        try driver.reset()
        #expect(addresses == Array(repeating: MMIODriver.address + Register.notify, count: 2))
        #expect(values == [0, 1])
        #expect(device.serviced == [1])
        #expect(driver.doorbells.addresses.isEmpty)
    }

    // MARK: interrupts

    @Test("a used buffer raises the line and its status bit, until it is acknowledged")
    func usedBuffer() throws {
        driver.start()
        let queue = try #require(device.queues[1])
        let chain = try queue.makeChains(1)[0]
        driver.queues[1].add([FakeQueue.Buffer(QueueFixture.buffers, 8, isWritable: true)])
        driver.queues[1].publish()
        _ = try queue.pop(into: chain)
        queue.push(chain, written: 0)
        queue.notify()
        let status = driver.read(Register.interruptStatus)
        let again = driver.read(Register.interruptStatus)
        driver.write(Register.interruptAcknowledge, 1)
        #expect(driver.edge.signals == 1)
        #expect(status == 1 && again == 1)
        #expect(driver.read(Register.interruptStatus) == 0)
    }

    @Test("a change of the configuration has a bit of its own, and moves the generation")
    func configurationChange() {
        driver.start()
        let before = driver.read(Register.generation)
        device.configuration[0] = 0x99
        device.configurationChanged?()
        driver.write(Register.interruptAcknowledge, 1)
        let status = driver.read(Register.interruptStatus)
        let value = driver.read(Register.configuration, .byte)
        #expect(status == 2 && value == 0x99)
        #expect(driver.read(Register.generation) == before + 1)
        #expect(driver.edge.signals == 1)
    }

    @Test("before DRIVER_OK a change interrupts nobody")
    func changeBeforeStart() {
        device.configurationChanged?()
        #expect(driver.edge.signals == 0)
    }

    @Test("a line that was masked is raised again if something is pending, else not")
    func unmask() {
        driver.start()
        driver.edge.unmask()
        let idle = driver.edge.signals
        device.configurationChanged?()
        driver.edge.unmask()
        #expect(idle == 0)
        #expect(driver.edge.signals == 2)
    }

    @Test("a fault sets NEEDS_RESET, interrupts and stops the device")
    func fault() throws {
        driver.start()
        device.faultsOnService = true
        driver.write(Register.notify, 0)
        driver.settle()
        #expect(driver.status & Self.needsReset != 0)
        #expect(driver.read(Register.interruptStatus) == 2)
        #expect(device.queues.isEmpty)
    }

    // MARK: reset

    @Test("a reset is done when its write returns", arguments: [1, 3])
    func reset(times: Int) throws {
        for _ in 0..<times {
            driver.start()
            device.configurationChanged?()
            let after = try driver.withLoop {
                driver.write(Register.status, 0)
                return (driver.status, driver.read(Register.interruptStatus))
            }
            #expect(after == (0, 0))
            #expect(device.queues.isEmpty)
        }
        driver.start()
        #expect(device.activations.count == times + 1)
    }

    @Test("a reset of a device that is not active forgets what is pending, without the loop")
    func resetIdle() {
        device.configurationChanged?()
        driver.write(Register.queueSelect, 1)
        driver.write(Register.status, 0)
        #expect(driver.read(Register.interruptStatus) == 0)
        #expect(driver.status == 0)
    }

    @Test("an unplugged device has no queues, no doorbells and no registers")
    func unplug() {
        driver.start()
        driver.transport.unplug()
        driver.write(Register.notify, 0)
        driver.settle()
        #expect(device.queues.isEmpty && device.serviced.isEmpty)
        #expect(driver.doorbells.addresses.isEmpty)
        #expect(driver.read(Register.magic) == 0xffff_ffff)
    }

    @Test("a transport is released once it is unplugged and its loop has run")
    func releases() throws {
        weak var transport: VirtIOMMIOTransport?
        weak var device: ProbeDevice?
        do {
            let driver = try MMIODriver()
            transport = driver.transport
            device = driver.device
            driver.start()
            try driver.reset()
            driver.transport.unplug()
        }
        #expect(transport == nil && device == nil)
    }

    // MARK: accesses

    @Test("device configuration is there at every width and place, zeros behind the end")
    func configuration() {
        let start = Register.configuration
        #expect(driver.read(start, .doubleWord) == 0x4433_2211)
        #expect(driver.read(start + 1, .word) == 0x3322)
        #expect(driver.read(start + 3, .quadWord) == 0x5544)
        #expect(driver.read(0xffd, .quadWord) == 0)
    }

    @Test("a write reaches the device where the device lets it")
    func configurationWrite() {
        driver.start()
        driver.write(Register.configuration, 0xaabb_ccdd)
        driver.settle()
        #expect(device.writes == [[0x11, 0x22, 0xbb, 0xaa, 0x55]])
    }

    @Test("control registers of another width or place read zeros and take nothing")
    func widths() {
        for width in [AccessWidth.byte, .word, .quadWord] {
            driver.write(Register.status, 1, width)
            #expect(driver.read(Register.magic, width) == 0)
        }
        driver.write(Register.status + 1, 0xffff_ffff)
        #expect(driver.read(Register.magic + 2) == 0)
        #expect(driver.status == 0)
    }

    @Test("vCPUs that reset a device at once all go on")
    func resetsAtOnce() throws {
        let bus = driver.memoryBus
        try driver.withLoop {
            let threads = (0..<3).compactMap { _ in
                try? HostThread(name: "vcpu", role: .tool) {
                    func write(_ offset: UInt64, _ value: UInt64) {
                        bus.write(
                            address: MMIODriver.address + offset, width: .doubleWord, value: value)
                    }
                    for _ in 0..<300 {
                        write(Register.driverFeaturesSelect, 1)
                        write(Register.driverFeatures, 1)
                        write(Register.status, 0xf)
                        write(Register.status, 0)
                    }
                }
            }
            for thread in threads { thread.join() }
            #expect(threads.count == 3)
        }
        driver.start()
        #expect(device.queues.count == 2)
    }

    @Test("no register traps at any width, offset and value")
    func everyRegister() throws {
        try driver.withLoop {
            for offset in 0..<UInt64(0x200) {
                for width in AccessWidth.allCases {
                    for value in [0, 1, 0x55aa_55aa_55aa_55aa, UInt64.max] {
                        _ = driver.read(offset, width)
                        driver.write(offset, value, width)
                    }
                }
            }
            driver.write(Register.status, 0)
        }
        driver.start()
        #expect(device.queues.count == 2)
    }
}
