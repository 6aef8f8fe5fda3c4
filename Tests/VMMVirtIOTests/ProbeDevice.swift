import Synchronization
import VMMBase
import VMMHost
import VMMVirtIO

/// A device that remembers what was done to it and misbehaves where a test says so.
final class ProbeDevice: VirtIODevice {
    static let foreignFeature: UInt64 = 1 << 5
    static let offered: UInt64 = 0b1001
    static let size: UInt16 = 16

    let id = "probe"
    let deviceType = VirtIODeviceType.entropy
    let queueSizes = [size, size]
    let offeredFeatures = offered
    let writableConfiguration = 2..<4
    var configurationChanged: (() -> Void)?

    /// What the device presents; a written byte counts only while the device is active.
    var configuration: [UInt8] = [0x11, 0x22, 0x33, 0x44, 0x55]
    var failsActivation = false
    var faultsOnService = false

    private(set) var activations: [(queueCount: Int, features: UInt64)] = []
    private(set) var serviced: [Int] = []
    private(set) var quiesceCount = 0
    private(set) var writes: [[UInt8]] = []
    private(set) var queues: [VirtQueue?] = []

    /// Queue 0 is this one's, where there is one.
    var threadServer: (thread: LoopThread, server: ThreadServer)?

    var assignments: [QueueAssignment] {
        guard let (thread, server) = threadServer, !queues.isEmpty else { return [] }
        return [QueueAssignment(queue: 0, thread: thread, server: LoopBound(adopting: server))]
    }

    struct Refusal: Error {}

    func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        self.queues = queues
        activations.append((queues.count { $0 != nil }, features))
        if failsActivation { throw Refusal() }
    }

    func activate(_ queue: VirtQueue, at index: Int) throws {
        if failsActivation { throw Refusal() }
        queues[index] = queue
    }

    func quiesce(queue index: Int) { queues[index] = nil }

    func service(queue index: Int) throws(GuestFault) {
        serviced.append(index)
        if faultsOnService { throw GuestFault("the test wants it") }
    }

    func quiesce() {
        quiesceCount += 1
        queues = []
        configuration[2] = 0x33
    }

    func configurationWritten(_ bytes: [UInt8]) {
        writes.append(bytes)
        if !queues.isEmpty { configuration[2] = bytes[2] }
    }
}

/// A queue on a thread of its own that counts what it is called for.
final class ThreadServer: QueueServer, Sendable {
    let calls = Atomic<Int>(0)
    /// How often it was brought to rest, and how often with all that was held back.
    let settled = Atomic<Int>(0)
    let drained = Atomic<Int>(0)
    /// Signalled after each call.
    let called: EventFD
    private let faults: Bool

    init(faults: Bool = false) throws {
        called = try EventFD()
        self.faults = faults
    }

    var wakeSources: [FileDescriptor] { [] }

    func service() throws(GuestFault) {
        calls.add(1, ordering: .relaxed)
        called.signal()
        if faults { throw GuestFault("the test wants it") }
    }

    func wake() throws(GuestFault) {}
    func settle() { settled.add(1, ordering: .relaxed) }
    func drain() { drained.add(1, ordering: .relaxed) }

    /// Waits for the next call, ten seconds at most.
    func waitForCall() -> Bool {
        called.descriptor.isReady(.readable, waitingMilliseconds: 10_000) && called.clear()
    }
}
