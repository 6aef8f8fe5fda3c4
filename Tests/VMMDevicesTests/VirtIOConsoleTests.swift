import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

@Suite("VirtIOConsole")
struct VirtIOConsoleTests {
    private enum Queue {
        static let receive = 0
        static let transmit = 1
    }

    let channel = RecordingChannel(size: TerminalSize(columns: 132, rows: 43))
    let device: VirtIOConsole
    let driver: FakeDriver

    init() throws {
        device = try Self.makeDevice(channel)
        driver = try FakeDriver(device)
        try driver.settle()
    }

    private static func makeDevice(_ channel: RecordingChannel) throws -> VirtIOConsole {
        let device = try VirtIOConsole(id: "_console0", channel: channel)
        try device.startChannel(on: EventLoop())
        return device
    }

    @Test(
        "a hostile driver gets a fault or an answer",
        arguments: VirtIODeviceContract.Scenario.allCases)
    func contract(scenario: VirtIODeviceContract.Scenario) throws {
        let contract = VirtIODeviceContract {
            let channel = RecordingChannel()
            let device = try Self.makeDevice(channel)
            channel.deliver([1, 2, 3])
            return device
        }
        #expect(try contract.violations(scenario) == [])
    }

    /// Found by LeakSanitizer under the fuzzer of devices.
    @Test("a console and its channel do not hold each other")
    func isReleased() throws {
        let channel = RecordingChannel()
        weak var released: VirtIOConsole?
        do {
            let device = try Self.makeDevice(channel)
            released = device
            #expect(released != nil)
        }
        #expect(released == nil)
    }

    @Test("it is a console with two queues and a size")
    func identity() {
        #expect(device.deviceType == .console)
        #expect(device.queueSizes == [256, 256])
        #expect(device.offeredFeatures == 1)
        #expect(device.configuration == [132, 0, 43, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    }

    @Test("output of several buffers, direct and indirect, reaches the channel in order")
    func transmits() throws {
        let queue = driver.queues[Queue.transmit]
        queue.add([driver.readable([1, 2]), driver.readable([3])])
        queue.addIndirect(
            [driver.readable([4]), driver.readable([5, 6])], table: driver.writable(64).address)
        try driver.ring(Queue.transmit)
        #expect(channel.sent == [1, 2, 3, 4, 5, 6])
        #expect(channel.sendCount == 2)
        #expect(queue.takeUsed().map(\.written) == [0, 0])
        #expect(queue.interrupt.count == 1)
    }

    @Test("input fills the driver's buffers and interrupts once")
    func receives() throws {
        let queue = driver.queues[Queue.receive]
        let buffers = [driver.writable(4), driver.writable(4)]
        for buffer in buffers { queue.add([buffer]) }
        try driver.ring(Queue.receive)
        #expect(queue.takeUsed().isEmpty)
        channel.deliver([1, 2, 3, 4, 5, 6])
        try driver.settle()
        #expect(queue.takeUsed().map(\.written) == [4, 2])
        #expect(driver.contents(buffers[0]) == [1, 2, 3, 4])
        #expect(driver.contents(buffers[1], count: 2) == [5, 6])
        #expect(queue.interrupt.count == 1)
    }

    @Test("input that finds no buffer waits for one, and asks to be told of it")
    func inputWaits() throws {
        let queue = driver.queues[Queue.receive]
        #expect(queue.isDoorbellSuppressed)
        channel.deliver([1, 2])
        try driver.settle()
        #expect(!queue.isDoorbellSuppressed)
        let buffer = driver.writable(8)
        queue.add([buffer])
        try driver.ring(Queue.receive)
        #expect(queue.takeUsed().map(\.written) == [2])
        #expect(driver.contents(buffer, count: 2) == [1, 2])
    }

    @Test("input beyond the threshold pauses the channel until the driver has taken it")
    func backPressure() throws {
        channel.deliver(Array(repeating: 1, count: 5000))
        #expect(channel.pauses == [true])
        driver.queues[Queue.receive].add([driver.writable(5000)])
        try driver.ring(Queue.receive)
        #expect(channel.pauses == [true, false])
    }

    @Test("input from before the driver is delivered to it")
    func earlyInput() throws {
        let channel = RecordingChannel()
        let device = try Self.makeDevice(channel)
        channel.deliver([7])
        let driver = try FakeDriver(device)
        let buffer = driver.writable(8)
        driver.queues[Queue.receive].add([buffer])
        driver.queues[Queue.receive].publish()
        try driver.settle()
        #expect(driver.contents(buffer, count: 1) == [7])
    }

    @Test("a new size is announced once, with the new configuration")
    func resizes() throws {
        let changes = Counter()
        device.configurationChanged = { changes.increment() }
        channel.resize(TerminalSize(columns: 80, rows: 25))
        channel.resize(TerminalSize(columns: 80, rows: 24))
        try driver.settle()
        #expect(changes.value == 1)
        #expect(device.configuration.prefix(4) == [80, 0, 24, 0])
    }

    @Test("a flood is served in turns, and all of it without another doorbell")
    func floodIsServedInTurns() throws {
        let queue = driver.queues[Queue.transmit]
        let buffer = driver.buffer(64 << 10, isWritable: false)
        for _ in 0..<32 { queue.add([buffer]) }
        try driver.ring(Queue.transmit)
        #expect(channel.sent.count == 1 << 20)
        #expect(try driver.settle() > 0)
        #expect(channel.sent.count == 2 << 20)
        #expect(queue.takeUsed().count == 32)
    }

    @Test("event index asks for the next doorbell and interrupts where the driver wants it")
    func eventIndex() throws {
        let device = try Self.makeDevice(channel)
        let driver = try FakeDriver(device, features: Feature.ring)
        let queue = driver.queues[Queue.transmit]
        queue.setInterruptEvent(1)
        queue.add([driver.readable([1])])
        try driver.ring(Queue.transmit)
        #expect(queue.doorbellEvent == 1)
        #expect(queue.interrupt.count == 0)
        queue.add([driver.readable([2])])
        try driver.ring(Queue.transmit)
        #expect(queue.interrupt.count == 1)
    }
}
