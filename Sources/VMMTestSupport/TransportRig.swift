import Synchronization
import VMMBase
import VMMBus
import VMMHost
import VMMVirtIO

/// Any virtio device on either transport, with a driver that programs its registers, rightly or
/// not. The device's loop runs on a thread of its own until `end`, as in a machine. With event
/// index not taken, each queue that `queue` gives is the driver's side of the device's.
package final class TransportRig {
    package enum Kind: CaseIterable, Sendable {
        case pci, mmio
    }

    /// Where a transport has a register, and how wide it is.
    private struct Register {
        let offset: UInt64
        let width: AccessWidth

        init(_ offset: UInt64, _ width: AccessWidth = .doubleWord) {
            self.offset = offset
            self.width = width
        }
    }

    /// The registers that a driver needs, in the order of VirtIO 1.3, 3.1.1.
    private struct Map {
        let status: Register
        let featureSelect: Register
        let features: Register
        let queueSelect: Register
        let queueSize: Register
        let queueEnable: Register
        let queueReset: Register
        /// Of the descriptors, the driver's and the device's area; high words follow low ones.
        let areas: [UInt64]
        let notify: UInt64
        /// A doorbell of its own for each queue, so many bytes apart.
        let notifyStep: UInt64
        let byteCount: UInt64

        static let pci = Map(
            status: Register(0x14, .byte), featureSelect: Register(0x08),
            features: Register(0x0c), queueSelect: Register(0x16, .word),
            queueSize: Register(0x18, .word), queueEnable: Register(0x1c, .word),
            queueReset: Register(0x3a, .word), areas: [0x20, 0x28, 0x30], notify: 0x3000,
            notifyStep: 4, byteCount: 0x10000)
        static let mmio = Map(
            status: Register(0x70), featureSelect: Register(0x24), features: Register(0x20),
            queueSelect: Register(0x30), queueSize: Register(0x38), queueEnable: Register(0x44),
            queueReset: Register(0xc0), areas: [0x80, 0x90, 0xa0], notify: 0x50, notifyStep: 0,
            byteCount: 0x1000)
    }

    /// Where the registers are.
    package static let address: UInt64 = 0xc000_0000
    /// Queues begin here, buffers at the second half of memory.
    private static let queueBase: UInt64 = 0x1000
    package static let buffers: UInt64 = FakeDriver.memoryByteCount / 2

    package let memory: GuestMemory
    /// What the driver takes in `start`, beside VERSION_1.
    package let features: UInt64
    package let queueCount: Int
    private let queueSizes: [UInt16]
    /// Where the driver put each queue last.
    private var layouts: [VirtQueue.Layout]
    private let device: LoopBound<any VirtIODevice>
    private let transport: any VirtIOTransport
    private let map: Map
    /// What the device answers on.
    package let bus = Bus()
    /// The device's PCI function, on PCI.
    package let function: (any PCIFunction)?
    private let thread: LoopThread

    package convenience init(
        _ device: any VirtIODevice, _ kind: Kind, features: UInt64
    ) throws {
        let device = LoopBound(adopting: device)
        try self.init(kind, features: features) { _ in device }
    }

    /// `makeDevice` runs on the thread of the loop that the device will belong to.
    package init(
        _ kind: Kind, features: UInt64,
        makeDevice: @escaping @Sendable (EventLoop) throws -> LoopBound<any VirtIODevice>
    ) throws {
        self.features = features | Feature.version1
        let range = GuestRange(start: GuestAddress(0), count: FakeDriver.memoryByteCount)
        memory = try GuestMemory(ranges: [range].compactMap { $0 }, usesHugePages: false)
        let thread = try LoopThread(name: "rig", role: .tool)
        self.thread = thread
        let made = Mutex<Result<LoopBound<any VirtIODevice>, any Error>?>(nil)
        thread.run {
            let result = Result { try makeDevice(thread.loop) }
            made.withLock { $0 = result }
        }
        guard let device = try made.withLock({ try $0?.get() }) else { throw NoDevice() }
        self.device = device
        queueSizes = device.withValue { $0.queueSizes }
        queueCount = queueSizes.count
        layouts = queueSizes.map { _ in VirtQueue.Layout() }
        let plug = TransportPlug(
            memoryBus: bus, doorbells: NoDoorbells(), loop: thread.loop, memory: memory,
            limiter: LogLimiter(clock: ManualClock()), features: Feature.packedRing)
        let address = GuestAddress(Self.address)
        switch kind {
        case .pci:
            map = .pci
            let function = try VirtIOPCITransport(
                device, plug: plug, interrupts: Silence(), barAddress: address)
            // Decoding on.
            function.writeConfiguration(at: 4, width: .word, value: 2)
            transport = function
            self.function = function
        case .mmio:
            map = .mmio
            function = nil
            transport = try VirtIOMMIOTransport(
                device, plug: plug, interrupt: Silence(), address: address)
        }
    }

    /// Unplugs the device, and ends it and its thread.
    package func end() {
        thread.end()
        transport.unplug()
        device.withValue { $0.finish() }
    }

    /// Runs `work` on the device's loop.
    package func onLoop(_ work: @escaping @Sendable () -> Void) { thread.run(work) }

    /// Waits until the loop has done what was posted and rung up to now.
    package func settle() {
        for _ in 0..<3 { thread.run {} }
    }

    // MARK: registers

    package var byteCount: UInt64 { map.byteCount }

    package func read(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        bus.read(address: Self.address + offset, width: width)
    }

    package func write(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        bus.write(address: Self.address + offset, width: width, value: value)
    }

    private func write(_ register: Register, _ value: UInt64) {
        write(register.offset, register.width, value)
    }

    package var status: UInt64 { read(map.status.offset, map.status.width) }

    package func setStatus(_ value: UInt64) { write(map.status, value) }

    package func ring(_ queue: Int) {
        write(map.notify + UInt64(queue) * map.notifyStep, .doubleWord, UInt64(queue))
    }

    // MARK: what a driver does

    package func reset() {
        setStatus(0)
        settle()
    }

    /// Everything up to DRIVER_OK, with queues of `size` or the largest. The rings are empty if
    /// their memory was zero.
    package func start(_ features: UInt64, size: UInt16? = nil) {
        setStatus(1)
        setStatus(3)
        for word in 0..<2 as Range<UInt64> {
            write(map.featureSelect, word)
            write(map.features, features >> (32 * word) & 0xffff_ffff)
        }
        setStatus(status | 8)
        var base = Self.queueBase
        for (index, limit) in queueSizes.enumerated() {
            setUp(index, size: size ?? limit, at: base)
            let end = layouts[index].deviceArea.rawValue + 8 * UInt64(size ?? limit) + 6
            base = (end + 4095) / 4096 * 4096
        }
        setStatus(status | 4)
        settle()
    }

    /// Enables a queue, in either format: the driver's area lies behind the descriptors, the
    /// device's behind that.
    private func setUp(_ index: Int, size: UInt16, at base: UInt64) {
        var layout = VirtQueue.Layout()
        layout.size = size
        layout.descriptors = GuestAddress(base)
        layout.driverArea = GuestAddress(base + 16 * UInt64(size))
        layout.deviceArea = GuestAddress((base + 18 * UInt64(size) + 6 + 3) / 4 * 4)
        layouts[index] = layout
        write(map.queueSelect, UInt64(index))
        write(map.queueSize, UInt64(size))
        let addresses = [layout.descriptors, layout.driverArea, layout.deviceArea]
        for (register, address) in zip(map.areas, addresses) {
            write(register, .doubleWord, address.rawValue & 0xffff_ffff)
            write(register + 4, .doubleWord, address.rawValue >> 32)
        }
        write(map.queueEnable, 1)
    }

    /// The driver's side of a queue that was set up on empty memory, before its first request.
    package func queue(_ index: Int) throws -> FakeQueue {
        features & Feature.packedRing == 0
            ? try FakeQueue(memory: memory, layout: layouts[index])
            : try FakePackedQueue(memory: memory, layout: layouts[index])
    }

    // MARK: one queue's reset (VirtIO 1.3, 2.6.1)

    /// Asks for the reset of one queue, and waits for its end.
    package func resetQueue(_ index: Int) {
        write(map.queueSelect, UInt64(index))
        write(map.queueReset, 1)
        settle()
    }

    /// Both registers of a queue that tell of a reset: whether one is under way, and whether the
    /// queue is enabled.
    package func resetState(_ index: Int) -> (isResetting: UInt64, isEnabled: UInt64) {
        write(map.queueSelect, UInt64(index))
        return (
            read(map.queueReset.offset, map.queueReset.width),
            read(map.queueEnable.offset, map.queueEnable.width)
        )
    }

    /// Gives the device back a queue that was reset: of this size, with rings of zeros where it
    /// was.
    package func reviveQueue(_ index: Int, size: UInt16) {
        let base = layouts[index].descriptors
        let count = min(FakeQueue.byteCount(size: size), FakeDriver.memoryByteCount / 2)
        _ = memory.copyIn(Array(repeating: UInt8(0), count: Int(count)), at: base)
        setUp(index, size: size, at: base.rawValue)
        settle()
    }

    /// Fills memory with zeros up to here: rings lie there.
    package func clear(byteCount: UInt64) {
        let zeros = Array(repeating: UInt8(0), count: Int(byteCount))
        _ = memory.copyIn(zeros, at: GuestAddress(0))
    }

    /// Resets the device and starts it on empty queues; what is wrong then, one sentence each.
    package func revival() -> [String] {
        reset()
        guard status == 0 else { return ["status is \(status) after a reset"] }
        clear(byteCount: Self.buffers)
        start(features)
        ringAll()
        guard status == 15 else { return ["status is \(status) after a start"] }
        return features & Feature.queueReset == 0 ? [] : queueRevival()
    }

    /// Resets each queue and sets it up again, smaller.
    private func queueRevival() -> [String] {
        var found: [String] = []
        for (index, limit) in queueSizes.enumerated() {
            resetQueue(index)
            let gone = resetState(index)
            if gone != (0, 0) { found.append("queue \(index) is \(gone) after its reset") }
            ringAll()
            reviveQueue(index, size: limit / 2)
            let back = resetState(index)
            if back != (0, 1) { found.append("queue \(index) is \(back) after its revival") }
            ringAll()
        }
        return status == 15 ? found : found + ["status is \(status) after queues' resets"]
    }

    private func ringAll() {
        for queue in 0..<queueCount { ring(queue) }
        settle()
    }
}

private struct NoDevice: Error {}

private struct NoDoorbells: DoorbellBinder {
    struct Refusal: Error {}

    func bind(_ event: EventFD, to doorbell: Doorbell) throws { throw Refusal() }
    func unbind(_ event: EventFD, from doorbell: Doorbell) {}
}

private final class Silence: EdgeInterrupt, MessageInterrupt, MessageInterruptSource {
    func signal() {}
    func signal(through sink: any EventSink) {}
    func whenUnmasked(_ action: @escaping @Sendable () -> Void) {}
    func route(_ message: InterruptMessage?) {}
    func release() {}
    func makeMessageInterrupt() -> any MessageInterrupt { self }
}
