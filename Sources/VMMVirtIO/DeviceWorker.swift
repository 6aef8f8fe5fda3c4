import Synchronization
import VMMBase
import VMMHost

/// Runs one device on one loop: doorbells and host events in, faults caught. Belongs to the
/// loop's thread.
package final class DeviceWorker {
    /// All that an activation needs, made by the transport.
    package struct Activation: Sendable {
        package var layouts: [VirtQueue.Layout?]
        package var interrupts: [any QueueInterrupt]
        package var features: UInt64

        package init(
            layouts: [VirtQueue.Layout?], interrupts: [any QueueInterrupt], features: UInt64
        ) {
            self.layouts = layouts
            self.interrupts = interrupts
            self.features = features
        }
    }

    package let device: any VirtIODevice
    private let loop: EventLoop
    private let memory: GuestMemory
    private let doorbells: [EventFD]
    private let limiter: LogLimiter
    private var isActive = false
    /// The device has left the machine, and will not be activated any more.
    private var isRetired = false
    private var features: UInt64 = 0
    /// The queues that threads of their own serve at present.
    private var assignments: [QueueAssignment] = []
    /// How often the guest broke the rules of this device.
    package private(set) var faultCount = 0
    /// Called when the guest broke the device: the transport sets NEEDS_RESET.
    package var faulted: (() -> Void)?

    package init(
        _ device: any VirtIODevice, loop: EventLoop, memory: GuestMemory, doorbells: [EventFD],
        limiter: LogLimiter
    ) {
        self.device = device
        self.loop = loop
        self.memory = memory
        self.doorbells = doorbells
        self.limiter = limiter
    }

    /// Gives the device its queues and begins to serve it.
    package func activate(_ activation: Activation) {
        guard !isRetired else { return }
        precondition(!isActive, "the transport posts a reset before it activates again")
        do {
            var queues: [VirtQueue?] = []
            features = activation.features
            for (index, layout) in activation.layouts.enumerated() {
                queues.append(
                    try layout.map { layout throws(GuestFault) in
                        try makeQueue(index, layout, activation.interrupts[index])
                    })
            }
            try device.activate(queues, features: activation.features)
            isActive = true
            try listen()
        } catch {
            // Also one that got its queues and then failed must not keep them. An active one is
            // deactivated by `fail`, which takes its threads off the queues first.
            if !isActive { device.quiesce() }
            fail(error)
        }
    }

    private func makeQueue(
        _ index: Int, _ layout: VirtQueue.Layout, _ interrupt: any QueueInterrupt
    ) throws(GuestFault) -> VirtQueue {
        try VirtQueue(
            layout, memory: memory, features: features, interrupt: interrupt,
            doorbell: doorbells[index])
    }

    /// Stops serving; the device has no queues and nothing in flight afterwards.
    package func deactivate() {
        guard isActive else { return }
        isActive = false
        ignoreAll { $0.settle() }
        device.quiesce()
        for doorbell in doorbells { doorbell.clear() }
    }

    /// Stops serving for good. An activation that was posted before is ignored.
    package func retire() {
        deactivate()
        isRetired = true
    }

    /// Stops serving for a while; the device keeps its queues, with nothing in flight.
    package func pause() {
        guard isActive else { return }
        ignoreAll { $0.drain() }
        device.drain()
    }

    /// Serves on. What rang meanwhile is heard of now.
    package func resume() {
        guard isActive else { return }
        device.resumed()
        do throws(HostError) {
            try listen()
        } catch {
            fail(error)
        }
    }

    /// Takes one queue from the device, which serves the others on. Of one that a fault has
    /// stopped all queues were taken before.
    package func deactivate(queue index: Int) {
        guard isActive else { return }
        whileUnserved {
            device.quiesce(queue: index)
            doorbells[index].clear()
        }
    }

    /// Gives the device a queue that the driver has set up since.
    package func activate(
        queue index: Int, _ layout: VirtQueue.Layout, interrupt: any QueueInterrupt
    ) {
        guard isActive else { return }
        whileUnserved { try device.activate(makeQueue(index, layout, interrupt), at: index) }
    }

    /// Changes which queues the device has, while nobody touches any. Bells that ring and hosts'
    /// descriptors that get ready meanwhile are heard of afterwards.
    private func whileUnserved(_ change: () throws -> Void) {
        ignoreAll { $0.settle() }
        do {
            try change()
            try listen()
        } catch {
            fail(error)
        }
    }

    /// Takes all hands off the queues. `rest` brings one that has a thread of its own to rest.
    private func ignoreAll(_ rest: @escaping @Sendable (any QueueServer) -> Void) {
        for doorbell in doorbells { loop.remove(doorbell.descriptor) }
        for source in device.wakeSources { loop.remove(source) }
        for assignment in assignments { assignment.stop(doorbells[assignment.queue], rest) }
        assignments = []
    }

    private func listen() throws(HostError) {
        assignments = device.assignments
        let elsewhere = Set(assignments.map(\.queue))
        for assignment in assignments {
            try assignment.start(doorbells[assignment.queue], faulted: reporter())
        }
        for (index, doorbell) in doorbells.enumerated() where !elsewhere.contains(index) {
            // Each ring is an event of its own, so nobody has to read the counter.
            try loop.add(doorbell.descriptor, [.readable, .edgeTriggered]) { [unowned self] in
                guarded { () throws(GuestFault) in try device.service(queue: index) }
            }
        }
        for (index, source) in device.wakeSources.enumerated() {
            try loop.add(source, [.readable, .edgeTriggered]) { [unowned self] in
                guarded { () throws(GuestFault) in try device.wake(source: index) }
            }
        }
        for ring in device.rings { loop.wait(in: ring) }
    }

    private func guarded(_ body: () throws(GuestFault) -> Void) {
        guard isActive else { return }
        do throws(GuestFault) {
            try body()
        } catch {
            fail(error)
        }
    }

    /// Brings a fault from a queue's thread to the worker's own.
    private func reporter() -> @Sendable (GuestFault) -> Void {
        let worker = LoopBound(adopting: WeakWorker(worker: self))
        return { [loop] fault in
            loop.post {
                worker.withValue { worker in
                    guard let worker = worker.worker, worker.isActive else { return }
                    worker.fail(fault)
                }
            }
        }
    }

    private func fail(_ error: any Error) {
        faultCount += 1
        limiter.warn("device \(device.id) stopped: \(error) (fault \(faultCount))")
        deactivate()
        faulted?()
    }
}

private struct WeakWorker {
    weak var worker: DeviceWorker?
}

// A queue on its own thread.
extension QueueAssignment {
    /// Begins to serve the queue. A fault ends that, and is reported.
    fileprivate func start(
        _ doorbell: EventFD, faulted: @escaping @Sendable (GuestFault) -> Void
    ) throws(HostError) {
        let failure = Mutex<HostError?>(nil)
        thread.run { [loop = thread.loop, server] in
            do throws(HostError) {
                try Self.listen(loop, doorbell, server, faulted)
            } catch {
                failure.withLock { $0 = error }
            }
        }
        if let error = failure.withLock({ $0 }) { throw error }
    }

    private static func listen(
        _ loop: EventLoop, _ doorbell: EventFD, _ server: LoopBound<any QueueServer>,
        _ faulted: @escaping @Sendable (GuestFault) -> Void
    ) throws(HostError) {
        // Until the worker has taken notice of a fault, the queue is left alone.
        var isBroken = false
        func guarded(_ body: (any QueueServer) throws(GuestFault) -> Void) {
            if isBroken { return }
            server.withValue { server in
                do throws(GuestFault) {
                    try body(server)
                } catch {
                    isBroken = true
                    faulted(error)
                }
            }
        }
        try loop.add(doorbell.descriptor, [.readable, .edgeTriggered]) {
            guarded { server throws(GuestFault) in try server.service() }
        }
        for source in server.withValue({ $0.wakeSources }) {
            try loop.add(source, [.readable, .edgeTriggered]) {
                guarded { server throws(GuestFault) in try server.wake() }
            }
        }
        if let ring = server.withValue({ $0.ring }) { loop.wait(in: ring) }
    }

    /// Stops serving: when this returns, the thread does not touch the queue any more.
    fileprivate func stop(
        _ doorbell: EventFD, _ rest: @escaping @Sendable (any QueueServer) -> Void
    ) {
        thread.run { [loop = thread.loop, server] in
            loop.remove(doorbell.descriptor)
            server.withValue { server in
                for source in server.wakeSources { loop.remove(source) }
                // Here and not later: requests belong to the thread that made them.
                rest(server)
            }
        }
    }
}
