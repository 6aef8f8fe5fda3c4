import Synchronization
import VMMBase
import VMMBus
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// An edge-triggered line that counts.
final class RecordingEdge: EdgeInterrupt {
    private let state = Mutex((signals: 0, action: (@Sendable () -> Void)?.none))

    func signal() { state.withLock { $0.signals += 1 } }
    func whenUnmasked(_ action: @escaping @Sendable () -> Void) {
        state.withLock { $0.action = action }
    }

    var signals: Int { state.withLock { $0.signals } }
    /// What the guest does by writing the interrupt controller.
    func unmask() { state.withLock { $0.action }?() }
}

/// A guest's virtio-mmio driver (VirtIO 1.3, 4.2), with the whole machine around one transport.
/// The loop runs on a thread of its own while something needs it: a reset waits for it.
final class MMIODriver {
    /// Offsets of registers (4.2.2).
    enum Register {
        static let magic: UInt64 = 0x000
        static let version: UInt64 = 0x004
        static let deviceID: UInt64 = 0x008
        static let deviceFeatures: UInt64 = 0x010
        static let deviceFeaturesSelect: UInt64 = 0x014
        static let driverFeatures: UInt64 = 0x020
        static let driverFeaturesSelect: UInt64 = 0x024
        static let queueSelect: UInt64 = 0x030
        static let queueSizeLimit: UInt64 = 0x034
        static let queueSize: UInt64 = 0x038
        static let queueReady: UInt64 = 0x044
        static let notify: UInt64 = 0x050
        static let interruptStatus: UInt64 = 0x060
        static let interruptAcknowledge: UInt64 = 0x064
        static let status: UInt64 = 0x070
        static let descriptors: UInt64 = 0x080
        static let driverArea: UInt64 = 0x090
        static let deviceArea: UInt64 = 0x0a0
        static let sharedMemorySelect: UInt64 = 0x0ac
        static let sharedMemory: UInt64 = 0x0b0
        static let generation: UInt64 = 0x0fc
        static let configuration: UInt64 = 0x100
    }

    static let address: UInt64 = 0xc000_1000

    let memoryBus = Bus()
    let edge = RecordingEdge()
    let doorbells = RecordingDoorbells()
    let loop: EventLoop
    let memory: GuestMemory
    let device: ProbeDevice
    let transport: VirtIOMMIOTransport
    let queues: [FakeQueue]

    init(_ device: ProbeDevice = ProbeDevice(), features: UInt64 = 0) throws {
        self.device = device
        loop = try EventLoop()
        let memory = try QueueFixture.makeMemory()
        self.memory = memory
        transport = try VirtIOMMIOTransport(
            LoopBound(adopting: device),
            plug: TransportPlug(
                memoryBus: memoryBus, doorbells: doorbells, loop: loop, memory: memory,
                limiter: LogLimiter(clock: ManualClock()), features: features),
            interrupt: edge, address: GuestAddress(Self.address))
        queues = try (0..<2).map { index in
            try FakeQueue.make(
                memory: memory, base: GuestAddress(4096 * (1 + 4 * UInt64(index))),
                size: ProbeDevice.size, features: features)
        }
    }

    /// Runs the loop until all that was posted and rung has been served.
    func settle() {
        for _ in 0..<3 {
            loop.post { [loop] in loop.stop() }
            try? loop.run()
        }
    }

    /// Runs the loop on another thread while `body` runs on this one.
    func withLoop<Result>(_ body: () -> Result) throws -> Result {
        let thread = try HostThread(name: "loop", role: .tool) { [loop] in try? loop.run() }
        let result = body()
        loop.stop()
        thread.join()
        return result
    }

    func read(_ offset: UInt64, _ width: AccessWidth = .doubleWord) -> UInt64 {
        memoryBus.read(address: Self.address + offset, width: width)
    }

    func write(_ offset: UInt64, _ value: UInt64, _ width: AccessWidth = .doubleWord) {
        memoryBus.write(address: Self.address + offset, width: width, value: value)
    }

    var status: UInt64 { read(Register.status) }

    var deviceFeatures: UInt64 {
        (0..<2).reduce(UInt64(0)) { features, select in
            write(Register.deviceFeaturesSelect, UInt64(select))
            return features | read(Register.deviceFeatures) << (32 * UInt64(select))
        }
    }

    @discardableResult
    func negotiate(_ features: UInt64 = Feature.version1) -> Bool {
        write(Register.status, 1)
        write(Register.status, 3)
        for select in 0..<2 as Range<UInt64> {
            write(Register.driverFeaturesSelect, select)
            write(Register.driverFeatures, features >> (32 * select) & 0xffff_ffff)
        }
        write(Register.status, 11)
        return status & 8 != 0
    }

    func setUp(queue index: Int) {
        let layout = queues[index].layout
        write(Register.queueSelect, UInt64(index))
        write(Register.queueSize, UInt64(layout.size))
        for (register, address) in [
            (Register.descriptors, layout.descriptors), (Register.driverArea, layout.driverArea),
            (Register.deviceArea, layout.deviceArea),
        ] {
            write(register, address.rawValue & 0xffff_ffff)
            write(register + 4, address.rawValue >> 32)
        }
        write(Register.queueReady, 1)
    }

    /// From power-on to a device that serves both its queues.
    func start(_ features: UInt64 = Feature.version1) {
        negotiate(features)
        for index in queues.indices { setUp(queue: index) }
        write(Register.status, status | 4)
        settle()
    }

    func reset() throws {
        try withLoop { write(Register.status, 0) }
    }
}
