import VMMBase
import VMMBus

/// Bits of the device status field (VirtIO 1.3, 2.1).
enum DeviceStatus {
    static let acknowledge: UInt8 = 1
    static let driver: UInt8 = 2
    static let driverOK: UInt8 = 4
    static let featuresOK: UInt8 = 8
    static let needsReset: UInt8 = 64
}

/// The basic facilities of a device (VirtIO 1.3, chapter 2) as its driver programs them through
/// any transport: status, features, queues and configuration space. A value without effects:
/// what a change leads to is for `DeviceControl` to carry out.
struct BasicFacilities {
    /// Where the driver stands with the device.
    enum Phase: Equatable {
        /// The device has no queues.
        case idle
        case active
        /// The driver wrote status 0; the loop has yet to take the queues away.
        case resetting
    }

    struct Queue {
        var layout = VirtQueue.Layout()
        var isEnabled = false
        /// The driver resets it; the loop has yet to take it away.
        var isResetting = false
        /// The interrupt vector, on transports that have them.
        var vector = MSIX.noVector
    }

    /// What a write leads to on the loop.
    enum Consequence: Equatable {
        case none
        case activate
        /// The queues are to be taken away.
        case reset
        /// There were none: the reset is done.
        case cleared
        /// One queue is to be taken away from the active device, or given to it.
        case resetQueue(Int)
        case activateQueue(Int)
    }

    let offeredFeatures: UInt64
    let queueSizes: [UInt16]
    let writableConfiguration: Range<Int>

    private(set) var status: UInt8 = 0
    var deviceFeatureSelect: UInt32 = 0
    var driverFeatureSelect: UInt32 = 0
    private(set) var driverFeatures: UInt64 = 0
    /// The driver took a feature above bit 63, where none is offered.
    private var hasForeignFeatures = false
    var queueSelect: UInt32 = 0
    private(set) var queues: [Queue]
    var configurationVector = MSIX.noVector
    private(set) var configuration: [UInt8]
    private(set) var generation: UInt8 = 0
    private var hasUnreadChange = false
    /// How often the loop has yet to tell the device what the driver wrote.
    private(set) var postedWrites = 0
    /// The last of these tells of further writes, too.
    private var coversWrites = false
    private(set) var phase = Phase.idle
    /// The device has left the machine: whatever a driver still does changes nothing.
    private(set) var isRetired = false

    init(
        features: UInt64, queueSizes: [UInt16], configuration: [UInt8],
        writableConfiguration: Range<Int>
    ) {
        offeredFeatures = features
        self.queueSizes = queueSizes
        self.configuration = configuration
        self.writableConfiguration = writableConfiguration
        queues = Self.queues(queueSizes)
    }

    private static func queues(_ sizes: [UInt16]) -> [Queue] { sizes.map { queue($0) } }

    private static func queue(_ size: UInt16) -> Queue {
        var queue = Queue()
        queue.layout.size = size
        return queue
    }

    /// The device is as after power-on; `configuration` is what it has now.
    mutating func reset(configuration: [UInt8]) {
        resetRegisters()
        if postedWrites == 0 { self.configuration = configuration }
    }

    /// For good; `reset` has to follow.
    mutating func retire() {
        isRetired = true
        phase = .resetting
    }

    private mutating func resetRegisters() {
        status = 0
        deviceFeatureSelect = 0
        driverFeatureSelect = 0
        driverFeatures = 0
        hasForeignFeatures = false
        queueSelect = 0
        queues = Self.queues(queueSizes)
        configurationVector = MSIX.noVector
        phase = .idle
    }
}

// Features and status.
extension BasicFacilities {
    /// The 32 offered features that the driver looks at.
    var deviceFeatureWord: UInt32 { Self.word(offeredFeatures, deviceFeatureSelect) }
    /// The 32 features it has taken, of those it looks at.
    var driverFeatureWord: UInt32 { Self.word(driverFeatures, driverFeatureSelect) }

    private static func word(_ features: UInt64, _ select: UInt32) -> UInt32 {
        select < 2 ? UInt32(truncatingIfNeeded: features >> (32 * UInt64(select))) : 0
    }

    mutating func setDriverFeatures(_ word: UInt32) {
        guard status & DeviceStatus.featuresOK == 0 else { return }
        guard driverFeatureSelect < 2 else {
            // Nothing is offered there; what the driver took nevertheless fails FEATURES_OK.
            if word != 0 { hasForeignFeatures = true }
            return
        }
        let shift = 32 * UInt64(driverFeatureSelect)
        driverFeatures = driverFeatures & ~(0xffff_ffff << shift) | UInt64(word) << shift
    }

    mutating func setStatus(_ value: UInt8) -> Consequence {
        if value == 0 {
            guard phase == .active else {
                resetRegisters()
                return .cleared
            }
            phase = .resetting
            return .reset
        }
        // Bits are only ever added; the device alone sets NEEDS_RESET.
        status |= value & ~DeviceStatus.needsReset
        let acceptable =
            !hasForeignFeatures && driverFeatures & ~offeredFeatures == 0
            && driverFeatures & Feature.version1 != 0
        if status & DeviceStatus.featuresOK != 0, !acceptable {
            status &= ~DeviceStatus.featuresOK
        }
        let needed = DeviceStatus.driverOK | DeviceStatus.featuresOK
        guard status & needed == needed, phase == .idle else { return .none }
        phase = .active
        // A write from now on is one to the active device: it gets a message behind activation.
        coversWrites = false
        return .activate
    }

    /// The guest broke the device.
    mutating func setNeedsReset() { status |= DeviceStatus.needsReset }
}

// Queues.
extension BasicFacilities {
    private var selected: Int? {
        queues.indices.contains(Int(queueSelect)) ? Int(queueSelect) : nil
    }

    /// The queue that the driver looks at; nil where there is none.
    var selectedQueue: Queue? { selected.map { queues[$0] } }
    /// The largest size that it can have.
    var selectedQueueLimit: UInt16 { selected.map { queueSizes[$0] } ?? 0 }

    /// Changes the queue that the driver looks at. One that is enabled has only its vector left
    /// to change.
    mutating func changeQueue(_ change: (inout Queue) -> Void) {
        guard let selected, !queues[selected].isEnabled else { return }
        change(&queues[selected])
    }

    mutating func setQueueVector(_ vector: UInt16) {
        if let selected { queues[selected].vector = vector }
    }

    mutating func setQueueSize(_ size: UInt32) {
        guard size <= UInt32(selectedQueueLimit) else { return }
        changeQueue { $0.layout.size = UInt16(size) }
    }

    /// Enables the queue. An active device gets it now, if the driver may reset queues.
    mutating func enableQueue() -> Consequence {
        guard let selected, !queues[selected].isEnabled else { return .none }
        queues[selected].isEnabled = true
        return phase == .active && canResetQueues ? .activateQueue(selected) : .none
    }

    /// Takes a queue back that the driver had enabled. Only a reset takes one from an active
    /// device.
    mutating func disableQueue() {
        if let selected, phase == .idle { queues[selected].isEnabled = false }
    }

    private var canResetQueues: Bool { driverFeatures & Feature.queueReset != 0 }

    /// Resets the queue (2.6.1). It stays as it is until an active device has given it up.
    mutating func resetQueue() -> Consequence {
        guard let selected, canResetQueues else { return .none }
        guard phase == .active, queues[selected].isEnabled else {
            endQueueReset(selected)
            return .none
        }
        guard !queues[selected].isResetting else { return .none }
        queues[selected].isResetting = true
        return .resetQueue(selected)
    }

    /// The device has no such queue any more: it is as after power-on.
    mutating func endQueueReset(_ index: Int) { queues[index] = Self.queue(queueSizes[index]) }

    /// Half of an address.
    static func set(_ address: inout GuestAddress, _ word: UInt32, high: Bool) {
        let old = address.rawValue
        address = GuestAddress(
            high ? old & 0xffff_ffff | UInt64(word) << 32 : old & ~0xffff_ffff | UInt64(word))
    }
}

// The device's configuration space.
extension BasicFacilities {
    /// Bytes at any place and of any width; zeros behind the end.
    mutating func readConfiguration(at start: Int, _ width: AccessWidth) -> UInt64 {
        if hasUnreadChange {
            hasUnreadChange = false
            generation &+= 1
        }
        return (0..<width.byteCount).reduce(UInt64(0)) { value, index in
            let position = start + index
            let byte = position < configuration.count ? configuration[position] : 0
            return value | UInt64(byte) << UInt64(8 * index)
        }
    }

    /// Writes what the driver may write; true when the loop must now tell the device.
    mutating func writeConfiguration(at start: Int, _ width: AccessWidth, _ value: UInt64) -> Bool {
        var isChanged = false
        for index in 0..<width.byteCount where writableConfiguration.contains(start + index) {
            configuration[start + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
            isChanged = true
        }
        // One message for any number of writes: a guest cannot make the loop's queue grow.
        guard isChanged, !coversWrites else { return false }
        postedWrites += 1
        coversWrites = true
        return true
    }

    /// What the driver wrote, for the device that is now told.
    mutating func takeWrites() -> [UInt8] {
        postedWrites -= 1
        if postedWrites == 0 { coversWrites = false }
        return configuration
    }

    /// What the device made of the driver's writes, unless there are more by now.
    mutating func settleWrites(_ accepted: [UInt8]) {
        if postedWrites == 0 { configuration = accepted }
    }

    /// The device changed its configuration by itself.
    mutating func updateConfiguration(_ bytes: [UInt8]) {
        configuration = bytes
        hasUnreadChange = true
    }
}
