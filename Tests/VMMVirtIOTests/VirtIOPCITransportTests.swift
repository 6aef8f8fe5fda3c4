import Testing
import VMMBase
import VMMBus
import VMMHost
import VMMTestSupport
import VMMVirtIO

private typealias Common = PCIDriver.Common
private typealias Status = PCIDriver.Status

@Suite("VirtIOPCITransport")
struct VirtIOPCITransportTests {
    let driver: PCIDriver
    let device: ProbeDevice

    init() throws {
        driver = try PCIDriver()
        device = driver.device
    }

    // MARK: identity

    @Test("configuration space names a modern virtio device and all its structures")
    func identity() {
        // 0x1af4 is virtio's vendor; 0x1040 plus the type, 4 for entropy.
        #expect(driver.readSpace(0, .doubleWord) == 0x1044_1af4)
        #expect(driver.bar == PCIDriver.barAddress)
        #expect(driver.structures.keys.sorted() == [1, 2, 3, 4, 5])
        #expect(driver.read(Common.queueCount, .word) == 2)
        // One vector for each queue and one for the configuration; the field holds one less.
        #expect(driver.readSpace(driver.msixCapability + 2, .word) == 2)
    }

    @Test("a BAR that moves while decoding is off leaves its place to others at once")
    func leavesItsPlace() throws {
        driver.writeSpace(0x04, .word, 0)
        driver.writeSpace(0x14, .doubleWord, 0x77)

        try driver.memoryBus.attach(
            ConstantDevice(7), at: PCIDriver.barAddress, count: VirtIOPCITransport.barByteCount)
        driver.writeSpace(0x04, .word, 2)

        #expect(driver.bar >> 32 == 0x77)
        #expect(driver.memoryBus.read(address: driver.bar + 0x12, width: .word) == 2)
    }

    // MARK: features

    @Test("what the device and the ring offer is offered, and nothing above bit 63")
    func offers() {
        #expect(driver.deviceFeatures == ProbeDevice.offered | Feature.ring)
        driver.write(Common.deviceFeatureSelect, .doubleWord, 2)
        #expect(driver.read(Common.deviceFeature, .doubleWord) == 0)
    }

    @Test("offered features with VERSION_1 are accepted and reach the device")
    func accepts() {
        let features = ProbeDevice.offered | Feature.ring
        driver.start(features)
        #expect(device.activations.map(\.features) == [features])
        #expect(device.activations.map(\.queueCount) == [2])
    }

    @Test(
        "a feature that is not offered, and a missing VERSION_1, clear FEATURES_OK",
        arguments: [
            Feature.version1 | ProbeDevice.foreignFeature, Feature.version1 | 1 << 63, 0,
            Feature.indirectDescriptors,
        ])
    func refuses(features: UInt64) {
        #expect(!driver.negotiate(features))
        #expect(driver.status == Status.acknowledge | Status.driver)
    }

    @Test("a feature above bit 63 clears FEATURES_OK until the next reset")
    func refusesForeignWords() {
        driver.setFeatureWord(2, 1)
        let isAccepted = driver.negotiate()
        driver.reset()
        driver.setFeatureWord(2, 0)
        #expect(!isAccepted)
        #expect(driver.negotiate())
    }

    @Test("features are settled once FEATURES_OK is set")
    func settled() {
        driver.negotiate(Feature.version1)
        driver.setFeatureWord(0, 1)
        driver.write(Common.driverFeatureSelect, .doubleWord, 0)
        #expect(driver.read(Common.driverFeature, .doubleWord) == 0)
    }

    // MARK: status

    @Test("DRIVER_OK without FEATURES_OK starts nothing")
    func driverOKTooEarly() {
        driver.setStatus(Status.acknowledge | Status.driver | Status.driverOK)
        driver.settle()
        #expect(device.activations.isEmpty)
    }

    @Test("status bits are only added, and NEEDS_RESET is not the driver's to set")
    func statusBits() {
        driver.setStatus(Status.acknowledge | Status.needsReset)
        driver.setStatus(Status.driver)
        #expect(driver.status == Status.acknowledge | Status.driver)
    }

    @Test("DRIVER_OK starts the device once, on its loop")
    func starts() {
        driver.start()
        driver.setStatus(driver.status | Status.driverOK)
        driver.settle()
        #expect(device.activations.count == 1)
    }

    @Test("status reads 0 only after the loop took the queues away")
    func reset() {
        driver.start()
        driver.setStatus(0)
        let before = driver.status
        let queuesBefore = device.queues.count
        driver.settle()
        #expect(before != 0 && queuesBefore == 2)
        #expect(driver.status == 0 && device.queues.isEmpty)
        #expect(driver.doorbells.addresses.isEmpty)
    }

    @Test("while a reset is under way writes change nothing")
    func writesDuringReset() {
        driver.start()
        driver.setStatus(0)
        driver.setStatus(0)
        driver.write(Common.queueSelect, .word, 1)
        driver.setStatus(Status.acknowledge)
        driver.settle()
        #expect(driver.status == 0)
        #expect(driver.read(Common.queueSelect, .word) == 0)
        #expect(device.quiesceCount == 1)
    }

    @Test("a device works again after a reset", arguments: [1, 3])
    func restarts(times: Int) {
        for _ in 0..<times {
            driver.start()
            driver.reset()
        }
        driver.start()
        driver.ring(1)
        driver.settle()
        #expect(device.activations.count == times + 1)
        #expect(device.serviced == [1])
    }

    @Test("DRIVER_OK and a reset before the loop ran leave the device without queues")
    func startAndResetAtOnce() {
        driver.negotiate()
        driver.setUp(queue: 0)
        driver.setStatus(driver.status | Status.driverOK)
        driver.setStatus(0)
        driver.settle()
        #expect(driver.status == 0 && device.queues.isEmpty)
        #expect(device.activations.count == 1 && device.quiesceCount == 1)
    }

    // MARK: queues

    @Test("a queue reads back as it was set up, and is fixed once it is enabled")
    func queueSetUp() {
        driver.negotiate()
        driver.write(Common.queueSelect, .word, 1)
        driver.write(Common.queueSize, .word, 8)
        driver.setUp(queue: 1, vector: 2)
        driver.write(Common.queueSize, .word, 4)
        driver.write(Common.queueDescriptors, .quadWord, 0)

        let layout = driver.queues[1].layout
        #expect(driver.read(Common.queueSize, .word) == 8)
        #expect(driver.read(Common.queueVector, .word) == 2)
        #expect(driver.read(Common.queueEnable, .word) == 1)
        #expect(driver.read(Common.queueNotifyOffset, .word) == 1)
        #expect(driver.read(Common.queueDescriptors, .quadWord) == layout.descriptors.rawValue)
        #expect(driver.read(Common.queueDriver, .quadWord) == layout.driverArea.rawValue)
        #expect(driver.read(Common.queueDevice, .quadWord) == layout.deviceArea.rawValue)
    }

    @Test("a queue that does not exist has size 0 and takes nothing")
    func missingQueue() {
        driver.write(Common.queueSelect, .word, 0xffff)
        driver.write(Common.queueSize, .word, 8)
        driver.write(Common.queueEnable, .word, 1)
        #expect(driver.read(Common.queueSize, .word) == 0)
        #expect(driver.read(Common.queueEnable, .word) == 0)
        #expect(driver.read(Common.queueVector, .word) == UInt64(MSIX.noVector))
    }

    @Test("a size above the largest is not taken")
    func sizeTooLarge() {
        driver.write(Common.queueSize, .word, UInt64(ProbeDevice.size) * 2)
        #expect(driver.read(Common.queueSize, .word) == UInt64(ProbeDevice.size))
    }

    @Test("a vector that does not exist reads back as none")
    func missingVector() {
        driver.write(Common.queueVector, .word, 3)
        driver.write(Common.configurationVector, .word, 3)
        #expect(driver.read(Common.queueVector, .word) == UInt64(MSIX.noVector))
        #expect(driver.read(Common.configurationVector, .word) == UInt64(MSIX.noVector))
    }

    @Test("a device starts with the queues that are enabled")
    func someQueues() {
        driver.negotiate()
        driver.setUp(queue: 1)
        driver.setStatus(driver.status | Status.driverOK)
        driver.settle()
        #expect(device.activations.map(\.queueCount) == [1])
        #expect(device.queues.map { $0 != nil } == [false, true])
    }

    @Test("a doorbell serves its queue, one that does not exist nobody")
    func doorbells() {
        driver.start()
        driver.ring(1)
        driver.ring(2)
        driver.ring(1023)
        driver.settle()
        #expect(device.serviced == [1])
    }

    @Test("a queue's interrupt is its vector")
    func queueInterrupt() throws {
        driver.start()
        let queue = try #require(device.queues[1])
        let chain = try queue.makeChains(1)[0]
        driver.queues[1].add([
            FakeQueue.Buffer(QueueFixture.buffers, 8, isWritable: true)
        ])
        driver.queues[1].publish()
        _ = try queue.pop(into: chain)
        queue.push(chain, written: 0)
        queue.notify()
        #expect(driver.interrupts.vectors.map(\.signals) == [0, 0, 1])
    }

    // MARK: faults

    @Test("a fault sets NEEDS_RESET, sends the configuration interrupt and stops the device")
    func fault() {
        driver.start()
        device.faultsOnService = true
        driver.ring(0)
        driver.settle()
        driver.ring(0)
        driver.settle()
        #expect(driver.status & Status.needsReset != 0)
        #expect(driver.interrupts.vectors[0].signals == 1)
        #expect(driver.takeInterruptStatus() == 2)
        #expect(driver.takeInterruptStatus() == 0)
        #expect(device.serviced == [0])
        #expect(device.queues.isEmpty)
    }

    @Test("a queue outside memory is a fault, and the device works after a reset")
    func faultAtStart() {
        driver.negotiate()
        driver.write(Common.queueDescriptors, .quadWord, .max)
        driver.write(Common.queueEnable, .word, 1)
        driver.setStatus(driver.status | Status.driverOK)
        driver.settle()
        let status = driver.status
        driver.reset()
        driver.start()
        #expect(status & Status.needsReset != 0)
        #expect(driver.status & Status.needsReset == 0)
        #expect(device.activations.count == 1)
    }

    @Test("a device that fails to start keeps no queues")
    func activationFails() {
        device.failsActivation = true
        driver.start()
        #expect(driver.status & Status.needsReset != 0)
        #expect(device.queues.isEmpty)
    }

    // MARK: unplug

    @Test("an unplugged device has no queues, no doorbells and no registers")
    func unplug() {
        driver.start()
        driver.transport.unplug()
        driver.ring(0)
        driver.settle()
        #expect(device.queues.isEmpty && device.serviced.isEmpty)
        #expect(driver.doorbells.addresses.isEmpty)
        #expect(driver.read(0, .doubleWord) == 0xffff_ffff)
    }

    @Test("a removed device has given back all, and whatever the driver still does changes nothing")
    func remove() {
        driver.start()
        driver.settle()
        driver.transport.remove()
        #expect(device.queues.isEmpty && driver.doorbells.addresses.isEmpty)
        #expect(driver.interrupts.vectors.allSatisfy { $0.isReleased })
        // A vCPU that was on its way into the registers.
        driver.moveBAR(to: 0x2_0000_0000)
        driver.transport.write(offset: 0x14, width: .byte, value: 0)
        for status in [Status.acknowledge, Status.driver, Status.featuresOK, Status.driverOK] {
            driver.transport.write(offset: 0x14, width: .byte, value: 0xf | status)
        }
        driver.settle()
        #expect(device.queues.isEmpty && driver.doorbells.addresses.isEmpty)
        #expect(driver.memoryBus.read(address: 0x2_0000_0000, width: .doubleWord) == 0xffff_ffff)
    }

    @Test("an activation that was posted before the removal does not happen")
    func removeBeforeActivation() {
        driver.start(settling: false)
        driver.transport.remove()
        driver.settle()
        #expect(device.queues.isEmpty && driver.doorbells.addresses.isEmpty)
    }

    @Test("a transport is released once it is unplugged and its loop has run")
    func releases() throws {
        weak var transport: VirtIOPCITransport?
        weak var device: ProbeDevice?
        do {
            let driver = try PCIDriver()
            transport = driver.transport
            device = driver.device
            driver.start()
            driver.reset()
            driver.transport.unplug()
        }
        #expect(transport == nil && device == nil)
    }
}
