import Synchronization
import VMMBase
import VMMBus
import VMMHost

/// What differs from transport to transport behind the registers: how the driver is interrupted,
/// and where it rings. Any thread.
protocol TransportWiring: AnyObject, Sendable {
    /// The interrupt of a queue that the driver has set up.
    func interrupt(of queue: BasicFacilities.Queue) -> any QueueInterrupt
    /// The configuration has changed or the device needs a reset: tells the driver, by `vector`
    /// where there are vectors, or nil while there is no driver to be told.
    func configurationChanged(vector: UInt16?)
    /// Forgets which interrupts the driver has not looked after.
    func reset()
    /// Where the driver rings for a queue; nil while the registers answer nowhere.
    func doorbell(ofQueue index: Int) -> Doorbell?
}

/// The part of a transport that all transports share. vCPU threads program the facilities under
/// one lock; the device itself lives on its loop, and is only ever posted to.
final class DeviceControl: Sendable {
    /// What does not change in the life of a device, read once before its loop runs.
    struct Traits: Sendable {
        let id: String
        let type: VirtIODeviceType
        let features: UInt64
        let queueSizes: [UInt16]
        /// Of a bus with many: those of the queues and that of configuration changes.
        let vectorCount: Int
        let configuration: [UInt8]
        let writableConfiguration: Range<Int>

        init(_ device: any VirtIODevice) {
            id = device.id
            type = device.deviceType
            features = device.offeredFeatures
            queueSizes = device.queueSizes
            vectorCount = device.queueInterruptCount + 1
            configuration = device.configuration
            writableConfiguration = device.writableConfiguration
        }
    }

    let id: String
    let facilities: Mutex<BasicFacilities>
    let plug: TransportPlug
    private let doorbells: [EventFD]
    private let wiring: any TransportWiring
    private let worker: LoopBound<DeviceWorker>
    /// Which doorbells are bound, so that exactly those are unbound. Held while registers move or
    /// doorbells are bound, so that two vCPUs that move them at once do not leave a range behind.
    /// Taken before any other lock.
    private let placement = Mutex<[(queue: Int, doorbell: Doorbell)]>([])

    init(
        _ device: LoopBound<any VirtIODevice>, _ traits: Traits, plug: TransportPlug,
        wiring: any TransportWiring
    ) throws {
        id = traits.id
        self.plug = plug
        self.wiring = wiring
        facilities = Mutex(
            BasicFacilities(
                features: traits.features | Feature.ring | plug.features,
                queueSizes: traits.queueSizes, configuration: traits.configuration,
                writableConfiguration: traits.writableConfiguration))
        let doorbells = try traits.queueSizes.map { _ throws(HostError) in try EventFD() }
        self.doorbells = doorbells
        worker = device.map { device in
            DeviceWorker(
                device, loop: plug.loop, memory: plug.memory, doorbells: doorbells,
                limiter: plug.limiter)
        }
        worker.withValue { worker in
            worker.faulted = { [weak self] in self?.setNeedsReset() }
            worker.device.configurationChanged = { [weak self, weak device = worker.device] in
                guard let device else { return }
                self?.updateConfiguration(device.configuration)
            }
        }
    }

    // MARK: the driver's side (vCPU threads)

    /// Lets the driver change something, unless a reset is under way, and sees to what follows.
    /// `afterReset` runs on the loop when the reset that the change began is done; true if there
    /// is one.
    @discardableResult
    func change(
        afterReset: (@Sendable () -> Void)? = nil,
        _ body: (inout BasicFacilities) -> BasicFacilities.Consequence
    ) -> Bool {
        let consequence = facilities.withLock { facilities -> BasicFacilities.Consequence in
            guard facilities.phase != .resetting, !facilities.isRetired else { return .none }
            let consequence = body(&facilities)
            // Posted under the lock, so that activations and resets reach the loop in the order
            // in which the state changed; `post` is a leaf.
            switch consequence {
            case .none: break
            case .cleared: wiring.reset()
            case .activate: postActivation(facilities)
            case .reset: postReset(afterReset)
            case .resetQueue(let index): postReset(queue: index)
            case .activateQueue(let index): postActivation(queue: index, facilities)
            }
            return consequence
        }
        switch consequence {
        case .activate, .activateQueue: placement.withLock { bindDoorbells(&$0) }
        default: break
        }
        return consequence == .reset
    }

    /// The driver rang for a queue and the write came to us.
    func ring(_ queue: Int) {
        if doorbells.indices.contains(queue) { doorbells[queue].signal() }
    }

    func readConfiguration(at start: Int, _ width: AccessWidth) -> UInt64 {
        facilities.withLock { $0.readConfiguration(at: start, width) }
    }

    /// Tells the device what the driver wrote into its configuration, once for all writes that
    /// are under way, and takes over what the device made of it.
    func writeConfiguration(at start: Int, _ width: AccessWidth, _ value: UInt64) {
        let isNews = facilities.withLock {
            !$0.isRetired && $0.writeConfiguration(at: start, width, value)
        }
        guard isNews else { return }
        plug.loop.post { [self] in
            let bytes = facilities.withLock { $0.takeWrites() }
            let accepted = worker.withValue { worker in
                worker.device.configurationWritten(bytes)
                return worker.device.configuration
            }
            facilities.withLock { $0.settleWrites(accepted) }
        }
    }

    // MARK: life of the device (vCPU threads decide, the loop acts)

    private func postActivation(_ facilities: borrowing BasicFacilities) {
        let activation = DeviceWorker.Activation(
            layouts: facilities.queues.map { $0.isEnabled ? $0.layout : nil },
            interrupts: facilities.queues.map { wiring.interrupt(of: $0) },
            features: facilities.driverFeatures)
        plug.loop.post { [worker, plug, id] in
            worker.withValue { $0.activate(activation) }
            plug.report(id, .activated)
        }
    }

    /// One message at most waits for each queue, for it can be reset again only when this reset
    /// is done; and so with its activation.
    private func postReset(queue index: Int) {
        plug.loop.post { [self] in
            worker.withValue { $0.deactivate(queue: index) }
            facilities.withLock { $0.endQueueReset(index) }
        }
    }

    private func postActivation(queue index: Int, _ facilities: borrowing BasicFacilities) {
        let queue = facilities.queues[index]
        plug.loop.post { [worker, interrupt = wiring.interrupt(of: queue)] in
            worker.withValue {
                $0.activate(queue: index, queue.layout, interrupt: interrupt)
            }
        }
    }

    private func postReset(_ afterReset: (@Sendable () -> Void)?) {
        let isPosted = plug.loop.post { [self] in
            deactivate()
            plug.report(id, .reset)
            afterReset?()
        }
        // The machine of a loop that has failed is about to end, and its vCPUs with it.
        if !isPosted { afterReset?() }
    }

    /// Takes the queues away from the device, which is as after power-on then. On the loop's
    /// thread, or after it has ended.
    func deactivate() {
        worker.withValue { $0.deactivate() }
        placement.withLock { unbindDoorbells(&$0) }
        let configuration = worker.withValue { $0.device.configuration }
        facilities.withLock { facilities in
            wiring.reset()
            facilities.reset(configuration: configuration)
        }
    }

    /// Takes the queues away for good: what vCPUs still do, and what is posted, changes nothing
    /// any more. On the loop's thread, or while it stands still.
    func retire() {
        facilities.withLock { $0.retire() }
        deactivate()
        worker.withValue { $0.retire() }
    }

    /// On the loop's thread.
    func pause() { worker.withValue { $0.pause() } }

    /// On the loop's thread.
    func resume() { worker.withValue { $0.resume() } }

    private func setNeedsReset() {
        let vector = facilities.withLock { facilities in
            facilities.setNeedsReset()
            return facilities.configurationVector
        }
        wiring.configurationChanged(vector: vector)
    }

    private func updateConfiguration(_ bytes: [UInt8]) {
        let vector = facilities.withLock { facilities -> UInt16? in
            facilities.updateConfiguration(bytes)
            let hasDriver = facilities.status & DeviceStatus.driverOK != 0
            return hasDriver ? facilities.configurationVector : nil
        }
        wiring.configurationChanged(vector: vector)
    }

    var isRetired: Bool { facilities.withLock { $0.isRetired } }

    // MARK: doorbells

    /// Moves the registers while nobody else does, and no doorbell is bound: `place` decides and
    /// says whether there is anything to move, `move` moves.
    func move(_ place: () -> Bool, _ move: () throws -> Void) rethrows {
        try placement.withLock { bound in
            guard place() else { return }
            unbindDoorbells(&bound)
            try move()
            bindDoorbells(&bound)
        }
    }

    /// Lets the driver's writes reach the eventfds without an exit.
    private func bindDoorbells(_ bound: inout [(queue: Int, doorbell: Doorbell)]) {
        let enabled = facilities.withLock { facilities -> [Int] in
            // A reset that came in between unbinds only what is bound by then.
            guard facilities.phase == .active else { return [] }
            return facilities.queues.indices.filter { facilities.queues[$0].isEnabled }
        }
        for queue in enabled where !bound.contains(where: { $0.queue == queue }) {
            guard let doorbell = wiring.doorbell(ofQueue: queue) else { continue }
            do {
                try plug.doorbells.bind(doorbells[queue], to: doorbell)
                bound.append((queue, doorbell))
            } catch {
                // Slower, not wrong: the write then exits to us and signals the same eventfd.
                plug.limiter.warn("\(id): doorbell of queue \(queue) not bound: \(error)")
            }
        }
    }

    private func unbindDoorbells(_ bound: inout [(queue: Int, doorbell: Doorbell)]) {
        for entry in bound { plug.doorbells.unbind(doorbells[entry.queue], from: entry.doorbell) }
        bound = []
    }
}
