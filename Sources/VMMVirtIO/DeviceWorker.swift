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
            // Also one that got its queues and then failed must not keep them.
            device.quiesce()
            fail(error)
        }
    }

    /// Stops serving; the device has no queues and nothing in flight afterwards.
    package func deactivate() {
        guard isActive else { return }
        isActive = false
        for doorbell in doorbells { loop.remove(doorbell.descriptor) }
        for source in device.wakeSources { loop.remove(source) }
        device.quiesce()
        for doorbell in doorbells { doorbell.clear() }
    }

    private func listen() throws(HostError) {
        for (index, doorbell) in doorbells.enumerated() {
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

    private func fail(_ error: any Error) {
        faultCount += 1
        limiter.warn("device \(device.id) stopped: \(error) (fault \(faultCount))")
        deactivate()
        faulted?()
    }
}
