import VMMBase
import VMMBus
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// A guest's virtio-pci driver: it knows what the specification says (VirtIO 1.3, 4.1) and finds
/// the rest in configuration space. With it the whole machine around one transport, whose loop
/// runs on the test's thread when the test says so.
final class PCIDriver {
    enum Status {
        static let acknowledge: UInt64 = 1
        static let driver: UInt64 = 2
        static let driverOK: UInt64 = 4
        static let featuresOK: UInt64 = 8
        static let needsReset: UInt64 = 64
    }

    /// Offsets in the common structure (4.1.4.3).
    enum Common {
        static let deviceFeatureSelect: UInt64 = 0x00
        static let deviceFeature: UInt64 = 0x04
        static let driverFeatureSelect: UInt64 = 0x08
        static let driverFeature: UInt64 = 0x0c
        static let configurationVector: UInt64 = 0x10
        static let queueCount: UInt64 = 0x12
        static let status: UInt64 = 0x14
        static let generation: UInt64 = 0x15
        static let queueSelect: UInt64 = 0x16
        static let queueSize: UInt64 = 0x18
        static let queueVector: UInt64 = 0x1a
        static let queueEnable: UInt64 = 0x1c
        static let queueNotifyOffset: UInt64 = 0x1e
        static let queueDescriptors: UInt64 = 0x20
        static let queueDriver: UInt64 = 0x28
        static let queueDevice: UInt64 = 0x30
        static let queueReset: UInt64 = 0x3a
    }

    static let barAddress: UInt64 = 0x1_0000_0000

    let memoryBus = Bus()
    let root = PCIRoot()
    let interrupts = RecordingInterrupts()
    let doorbells = RecordingDoorbells()
    let loop: EventLoop
    let memory: GuestMemory
    let device: ProbeDevice
    let transport: VirtIOPCITransport
    let queues: [FakeQueue]
    private let ecam: any BusDevice
    private let deviceNumber: UInt64
    /// Where each structure lies inside the BAR, by its type (4.1.4), and where its capability is.
    private(set) var structures: [UInt64: UInt64] = [:]
    private(set) var capabilities: [UInt64: UInt64] = [:]
    private(set) var msixCapability: UInt64 = 0

    init(_ device: ProbeDevice = ProbeDevice(), features: UInt64 = 0) throws {
        self.device = device
        loop = try EventLoop()
        memory = try QueueFixture.makeMemory()
        transport = try VirtIOPCITransport(
            LoopBound(adopting: device),
            plug: TransportPlug(
                memoryBus: memoryBus, doorbells: doorbells, loop: loop, memory: memory,
                limiter: LogLimiter(clock: ManualClock()), features: features),
            interrupts: interrupts, barAddress: GuestAddress(Self.barAddress))
        deviceNumber = UInt64(root.attach(transport)?.device ?? 0)
        ecam = root.ecam
        let memory = memory
        queues = try (0..<2).map { index in
            try FakeQueue(
                memory: memory, base: GuestAddress(4096 * (1 + 4 * UInt64(index))),
                size: ProbeDevice.size)
        }
        findCapabilities()
        writeSpace(0x04, .word, 2)
    }

    /// Runs the loop until all that was posted and rung has been served.
    func settle() {
        for _ in 0..<3 {
            loop.post { [loop] in loop.stop() }
            try? loop.run()
        }
    }

    // MARK: configuration space

    func readSpace(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        ecam.read(offset: deviceNumber << 15 | offset, width: width)
    }

    func writeSpace(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        ecam.write(offset: deviceNumber << 15 | offset, width: width, value: value)
    }

    private func findCapabilities() {
        var next = readSpace(0x34, .byte)
        while next != 0 {
            let type = readSpace(next + 3, .byte)
            switch readSpace(next, .byte) {
            case 0x11: msixCapability = next
            case 0x09:
                capabilities[type] = next
                structures[type] = readSpace(next + 8, .doubleWord)
            default: break
            }
            next = readSpace(next + 1, .byte)
        }
    }

    var bar: UInt64 { readSpace(0x10, .doubleWord) & ~0xf | readSpace(0x14, .doubleWord) << 32 }

    /// Moves the BAR as guests do: decoding off, both halves, decoding on.
    func moveBAR(to address: UInt64) {
        let command = readSpace(0x04, .word)
        writeSpace(0x04, .word, command & ~2)
        writeSpace(0x10, .doubleWord, address & 0xffff_ffff)
        writeSpace(0x14, .doubleWord, address >> 32)
        writeSpace(0x04, .word, command | 2)
    }

    func setMSIX(enabled: Bool, masked: Bool = false) {
        writeSpace(msixCapability + 2, .word, (enabled ? 0x8000 : 0) | (masked ? 0x4000 : 0))
    }

    /// Routes and unmasks a vector, by the table that the capability names.
    func program(vector: UInt64) {
        let table = bar + readSpace(msixCapability + 4, .doubleWord) & ~7 + 16 * vector
        memoryBus.write(address: table, width: .quadWord, value: 0xfee0_0000)
        memoryBus.write(address: table + 8, width: .doubleWord, value: 0x40 + vector)
        memoryBus.write(address: table + 12, width: .doubleWord, value: 0)
    }

    // MARK: common structure

    private func common(_ offset: UInt64) -> UInt64 { bar + (structures[1] ?? 0) + offset }

    func read(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        memoryBus.read(address: common(offset), width: width)
    }

    func write(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        memoryBus.write(address: common(offset), width: width, value: value)
    }

    var status: UInt64 { read(Common.status, .byte) }

    func setStatus(_ value: UInt64) { write(Common.status, .byte, value) }

    var deviceFeatures: UInt64 {
        (0..<2).reduce(UInt64(0)) { features, select in
            write(Common.deviceFeatureSelect, .doubleWord, UInt64(select))
            return features | read(Common.deviceFeature, .doubleWord) << (32 * UInt64(select))
        }
    }

    func setFeatureWord(_ select: UInt64, _ word: UInt64) {
        write(Common.driverFeatureSelect, .doubleWord, select)
        write(Common.driverFeature, .doubleWord, word)
    }

    /// Takes these features; true when the device accepts them.
    @discardableResult
    func negotiate(_ features: UInt64 = Feature.version1) -> Bool {
        setStatus(Status.acknowledge)
        setStatus(Status.acknowledge | Status.driver)
        setFeatureWord(0, features & 0xffff_ffff)
        setFeatureWord(1, features >> 32)
        setStatus(status | Status.featuresOK)
        return status & Status.featuresOK != 0
    }

    func setUp(queue index: Int, vector: UInt64 = 1) {
        let layout = queues[index].layout
        write(Common.queueSelect, .word, UInt64(index))
        write(Common.queueVector, .word, vector)
        write(Common.queueDescriptors, .quadWord, layout.descriptors.rawValue)
        write(Common.queueDriver, .quadWord, layout.driverArea.rawValue)
        write(Common.queueDevice, .quadWord, layout.deviceArea.rawValue)
        write(Common.queueEnable, .word, 1)
    }

    /// From power-on to a device that serves both its queues.
    func start(_ features: UInt64 = Feature.version1, settling: Bool = true) {
        setMSIX(enabled: true)
        for vector in 0..<3 { program(vector: UInt64(vector)) }
        negotiate(features)
        write(Common.configurationVector, .word, 0)
        for index in queues.indices { setUp(queue: index, vector: UInt64(1 + index)) }
        setStatus(status | Status.driverOK)
        if settling { settle() }
    }

    func reset() {
        setStatus(0)
        settle()
    }

    func resetQueue(_ index: UInt64) {
        write(Common.queueSelect, .word, index)
        write(Common.queueReset, .word, 1)
        settle()
    }

    // MARK: other structures

    func doorbell(_ queue: UInt64) -> UInt64 {
        let multiplier = readSpace((capabilities[2] ?? 0) + 16, .doubleWord)
        return bar + (structures[2] ?? 0) + queue * multiplier
    }

    /// Rings as a vCPU exit does, without an ioeventfd.
    func ring(_ queue: UInt64) {
        memoryBus.write(address: doorbell(queue), width: .word, value: queue)
    }

    /// Reading it clears it (4.1.4.5).
    func takeInterruptStatus() -> UInt64 {
        memoryBus.read(address: bar + (structures[3] ?? 0), width: .byte)
    }

    func readDevice(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        memoryBus.read(address: bar + (structures[4] ?? 0) + offset, width: width)
    }

    func writeDevice(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        memoryBus.write(address: bar + (structures[4] ?? 0) + offset, width: width, value: value)
    }

    // MARK: the PCI-access capability (4.1.4.9)

    func aimWindow(bar index: UInt64, offset: UInt64, count: UInt64) {
        let capability = capabilities[5] ?? 0
        writeSpace(capability + 4, .byte, index)
        writeSpace(capability + 8, .doubleWord, offset)
        writeSpace(capability + 12, .doubleWord, count)
    }

    func readWindow(_ width: AccessWidth = .doubleWord) -> UInt64 {
        readSpace((capabilities[5] ?? 0) + 16, width)
    }

    func writeWindow(_ value: UInt64, _ width: AccessWidth = .doubleWord) {
        writeSpace((capabilities[5] ?? 0) + 16, width, value)
    }
}
