import Synchronization
import VMMBase
import VMMBus
import VMMHost

/// A virtio device on the PCI bus (VirtIO 1.3, 4.1): modern only, MSI-X only. vCPU threads program
/// it under one lock; the device itself lives on its loop, and is only ever posted to.
package final class VirtIOPCITransport: Sendable {
    /// Where the transport stands with its device.
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
        var vector = MSIX.noVector
    }

    struct State {
        var status: UInt8 = 0
        var deviceFeatureSelect: UInt32 = 0
        var driverFeatureSelect: UInt32 = 0
        var driverFeatures: UInt64 = 0
        /// The driver took a feature above bit 63, where none is offered.
        var hasForeignFeatures = false
        var queueSelect: UInt16 = 0
        var queues: [Queue]
        var configurationVector = MSIX.noVector
        var interruptStatus: UInt8 = 0
        var configuration: [UInt8]
        var generation: UInt8 = 0
        var hasUnreadChange = false
        /// How often the loop has yet to tell the device what the driver wrote.
        var postedWrites = 0
        /// The last of these tells of further writes, too.
        var coversWrites = false
        var phase = Phase.idle
        var pci: PCIConfiguration
        /// Where the BAR answers on the memory bus at present.
        var mapped: GuestRange?
        /// Where doorbells are bound to, so that exactly those are unbound.
        var boundDoorbells: [(queue: Int, address: GuestAddress)] = []

        /// Reset state, but for what belongs to PCI.
        mutating func resetDevice(queueSizes: [UInt16]) {
            status = 0
            deviceFeatureSelect = 0
            driverFeatureSelect = 0
            driverFeatures = 0
            hasForeignFeatures = false
            queueSelect = 0
            queues = Self.queues(queueSizes)
            configurationVector = MSIX.noVector
            interruptStatus = 0
            phase = .idle
        }

        static func queues(_ sizes: [UInt16]) -> [Queue] {
            sizes.map { size in
                var queue = Queue()
                queue.layout.size = size
                return queue
            }
        }
    }

    /// What a transport is plugged into.
    package struct Plug: Sendable {
        package let memoryBus: Bus
        package let interrupts: any MessageInterruptSource
        package let doorbells: any DoorbellBinder
        package let loop: EventLoop
        package let memory: GuestMemory
        package let clock: any HostClock

        package init(
            memoryBus: Bus, interrupts: any MessageInterruptSource,
            doorbells: any DoorbellBinder, loop: EventLoop, memory: GuestMemory,
            clock: any HostClock
        ) {
            self.memoryBus = memoryBus
            self.interrupts = interrupts
            self.doorbells = doorbells
            self.loop = loop
            self.memory = memory
            self.clock = clock
        }
    }

    /// What does not change in the life of a device, read once before its loop runs.
    struct Traits: Sendable {
        let id: String
        let type: VirtIODeviceType
        let features: UInt64
        let queueSizes: [UInt16]
        let configuration: [UInt8]
        let writableConfiguration: Range<Int>

        init(_ device: any VirtIODevice) {
            id = device.id
            type = device.deviceType
            features = device.offeredFeatures
            queueSizes = device.queueSizes
            configuration = device.configuration
            writableConfiguration = device.writableConfiguration
        }
    }

    /// The size of the function's BAR, and its alignment.
    package static let barByteCount = VirtIOPCI.barSize

    package let id: String
    let offeredFeatures: UInt64
    let queueSizes: [UInt16]
    let writableConfiguration: Range<Int>
    let msix: MSIX
    let doorbells: [EventFD]
    let plug: Plug
    let state: Mutex<State>
    private let worker: LoopBound<DeviceWorker>
    /// Held while the BAR moves or doorbells are bound, so that two vCPUs that move it at once do
    /// not leave a range behind. Taken before any other lock.
    private let placement = Mutex<Void>(())
    private let limiter: LogLimiter
    /// Where the PCI-access and MSI-X capabilities start in configuration space.
    let accessCapability: Int
    let msixCapability: Int

    /// Plugs `device` in; it answers at `barAddress` once the guest turns its BAR on.
    package init(
        _ device: LoopBound<any VirtIODevice>, plug: Plug, barAddress: GuestAddress
    ) throws {
        let traits = device.withValue { Traits($0) }
        id = traits.id
        offeredFeatures = traits.features | Feature.ring
        queueSizes = traits.queueSizes
        writableConfiguration = traits.writableConfiguration
        msix = MSIX(vectorCount: traits.queueSizes.count + 1, source: plug.interrupts)
        let doorbells = try traits.queueSizes.map { _ throws(HostError) in try EventFD() }
        self.doorbells = doorbells
        self.plug = plug
        limiter = LogLimiter(clock: plug.clock)
        let pci = Self.makeConfiguration(traits, barAddress: barAddress)
        accessCapability = pci.access
        msixCapability = pci.msix
        state = Mutex(
            State(
                queues: State.queues(traits.queueSizes), configuration: traits.configuration,
                pci: pci.configuration))
        worker = device.map { device in
            DeviceWorker(
                device, loop: plug.loop, memory: plug.memory, doorbells: doorbells,
                clock: plug.clock)
        }
        worker.withValue { worker in
            worker.faulted = { [weak self] in self?.setNeedsReset() }
            worker.device.configurationChanged = { [weak self, weak device = worker.device] in
                guard let device else { return }
                self?.updateConfiguration(device.configuration)
            }
        }
        try remap()
    }

    // MARK: life of the device (vCPU threads decide, the loop acts)

    /// The driver set DRIVER_OK. Called under the lock, so that activations and resets reach the
    /// loop in the order in which the state changed; `post` is a leaf.
    func postActivation(_ activation: DeviceWorker.Activation) {
        plug.loop.post { [worker] in
            worker.withValue { $0.activate(activation) }
        }
    }

    /// Lets the driver's writes reach the eventfds without an exit. Called without the lock.
    func connectDoorbells() {
        placement.withLock { _ in bindDoorbells() }
    }

    /// The driver wrote status 0 while the device was active. Called under the lock, as above.
    func postReset() {
        plug.loop.post { [self] in
            worker.withValue { $0.deactivate() }
            finishReset()
        }
    }

    private func finishReset() {
        placement.withLock { _ in unbindDoorbells() }
        let sizes = queueSizes
        let configuration = worker.withValue { $0.device.configuration }
        state.withLock { state in
            state.resetDevice(queueSizes: sizes)
            if state.postedWrites == 0 { state.configuration = configuration }
        }
    }

    /// Takes the device back from the guest; on the loop's thread, or after it has ended.
    package func unplug() {
        worker.withValue { $0.deactivate() }
        finishReset()
        let mapped = state.withLock { state in
            defer { state.mapped = nil }
            return state.mapped
        }
        if let mapped { plug.memoryBus.detach(at: mapped.start.rawValue) }
    }

    private func setNeedsReset() {
        let vector = state.withLock { state -> UInt16 in
            state.status |= VirtIOPCI.Status.needsReset
            state.interruptStatus |= 2
            return state.configurationVector
        }
        msix.signal(vector)
    }

    private func updateConfiguration(_ bytes: [UInt8]) {
        let vector = state.withLock { state -> UInt16? in
            state.configuration = bytes
            state.hasUnreadChange = true
            state.interruptStatus |= 2
            return state.status & VirtIOPCI.Status.driverOK != 0 ? state.configurationVector : nil
        }
        if let vector { msix.signal(vector) }
    }

    /// Tells the device what the driver wrote into its configuration, and takes over what the
    /// device made of it. Called without the lock, once for all writes that are under way.
    func configurationWritten() {
        plug.loop.post { [self] in
            let bytes = state.withLock { state in
                state.postedWrites -= 1
                if state.postedWrites == 0 { state.coversWrites = false }
                return state.configuration
            }
            let accepted = worker.withValue { worker in
                worker.device.configurationWritten(bytes)
                return worker.device.configuration
            }
            state.withLock { if $0.postedWrites == 0 { $0.configuration = accepted } }
        }
    }

    // MARK: addresses

    /// Makes the memory bus answer where the BAR is now.
    func remap() throws {
        try placement.withLock { _ in try move() }
    }

    private func move() throws {
        let (old, new) = state.withLock { state -> (GuestRange?, GuestRange?) in
            // While decoding is off an unmoved range stays and reads as all ones: guests switch it
            // off and on again without moving anything, and each move costs the kernel a lot. One
            // that has moved leaves its place at once, for another function may move there.
            let isDecoding = state.pci.barRange(VirtIOPCI.barIndex) != nil
            let place = state.pci.barPlace(VirtIOPCI.barIndex)
            guard place != state.mapped else { return (nil, nil) }
            let old = state.mapped
            state.mapped = isDecoding ? place : nil
            return (old, state.mapped)
        }
        guard old != nil || new != nil else { return }
        unbindDoorbells()
        if let old { plug.memoryBus.detach(at: old.start.rawValue) }
        guard let new else { return }
        do {
            try plug.memoryBus.attach(self, at: new.start.rawValue, count: new.count)
        } catch {
            // The guest put the BAR over something else: it answers nowhere until moved again.
            state.withLock { $0.mapped = nil }
            throw error
        }
        bindDoorbells()
    }

    private func bindDoorbells() {
        let targets = state.withLock { state -> [(queue: Int, address: GuestAddress)] in
            // A reset that came in between unbinds only what is bound by then.
            guard state.phase == .active, let base = state.mapped?.start else { return [] }
            return state.queues.indices.compactMap { index in
                let offset = VirtIOPCI.notifyOffset + UInt64(index) * VirtIOPCI.notifyMultiplier
                guard state.queues[index].isEnabled, let address = base.advanced(by: offset),
                    !state.boundDoorbells.contains(where: { $0.queue == index })
                else { return nil }
                return (index, address)
            }
        }
        var bound: [(queue: Int, address: GuestAddress)] = []
        for target in targets {
            do {
                try plug.doorbells.bind(doorbells[target.queue], toWritesAt: target.address)
                bound.append(target)
            } catch {
                // Slower, not wrong: the write then exits to us and signals the same eventfd.
                limiter.warn("\(id): doorbell of queue \(target.queue) not bound: \(error)")
            }
        }
        state.withLock { $0.boundDoorbells += bound }
    }

    private func unbindDoorbells() {
        let bound = state.withLock { state in
            defer { state.boundDoorbells = [] }
            return state.boundDoorbells
        }
        for target in bound {
            plug.doorbells.unbind(doorbells[target.queue], fromWritesAt: target.address)
        }
    }
}

/// One queue's interrupt: an MSI-X vector.
final class VectorInterrupt: QueueInterrupt {
    private let msix: MSIX
    private let vector: UInt16

    init(msix: MSIX, vector: UInt16) {
        self.msix = msix
        self.vector = vector
    }

    func signal() { msix.signal(vector) }
}
