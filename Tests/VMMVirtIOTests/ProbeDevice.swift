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

    struct Refusal: Error {}

    func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        self.queues = queues
        activations.append((queues.count { $0 != nil }, features))
        if failsActivation { throw Refusal() }
    }

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
