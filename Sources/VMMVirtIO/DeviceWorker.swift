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
    /// The queues that threads of their own serve at present.
    private var assignments: [QueueAssignment] = []
    /// How often the guest broke the rules of this device.
    package private(set) var faultCount = 0
    /// Called when the guest broke the device: the transport sets NEEDS_RESET.
    package var faulted: (() -> Void)?

    package init(
        _ device: any VirtIODevice, loop: EventLoop, memory: GuestMemory, doorbells: [EventFD],
        clock: any HostClock
    ) {
        self.device = device
        self.loop = loop
        self.memory = memory
        self.doorbells = doorbells
        self.limiter = LogLimiter(clock: clock)
    }

    /// Gives the device its queues and begins to serve it.
    package func activate(_ activation: Activation) {
        precondition(!isActive, "the transport posts a reset before it activates again")
        do {
            var queues: [VirtQueue?] = []
            for (index, layout) in activation.layouts.enumerated() {
                guard let layout else {
                    queues.append(nil)
                    continue
                }
                queues.append(
                    try VirtQueue(
                        layout, memory: memory, features: activation.features,
                        interrupt: activation.interrupts[index], doorbell: doorbells[index]))
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

    /// Stops serving; the device has no queues and nothing in flight afterwards.
    package func deactivate() {
        guard isActive else { return }
        isActive = false
        for doorbell in doorbells { loop.remove(doorbell.descriptor) }
        for source in device.wakeSources { loop.remove(source) }
        for assignment in assignments { assignment.stop(doorbells[assignment.queue]) }
        assignments = []
        device.quiesce()
        for doorbell in doorbells { doorbell.clear() }
    }

    private func listen() throws(HostError) {
        assignments = device.assignments
        let elsewhere = Set(assignments.map(\.queue))
        for assignment in assignments {
            try assignment.start(doorbells[assignment.queue], faulted: reporter())
        }
        for (index, doorbell) in doorbells.enumerated() where !elsewhere.contains(index) {
            try loop.add(doorbell.descriptor, [.readable]) { [unowned self] in
                doorbell.clear()
                guarded { () throws(GuestFault) in try device.service(queue: index) }
            }
        }
        for (index, source) in device.wakeSources.enumerated() {
            try loop.add(source, [.readable, .edgeTriggered]) { [unowned self] in
                guarded { () throws(GuestFault) in try device.wake(source: index) }
            }
        }
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
        try loop.add(doorbell.descriptor, [.readable]) {
            doorbell.clear()
            guarded { server throws(GuestFault) in try server.service() }
        }
        for source in server.withValue({ $0.wakeSources }) {
            try loop.add(source, [.readable, .edgeTriggered]) {
                guarded { server throws(GuestFault) in try server.wake() }
            }
        }
    }

    /// Stops serving: when this returns, the thread does not touch the queue any more.
    fileprivate func stop(_ doorbell: EventFD) {
        thread.run { [loop = thread.loop, server] in
            loop.remove(doorbell.descriptor)
            for source in server.withValue({ $0.wakeSources }) { loop.remove(source) }
        }
    }
}
