import Synchronization
import VMMBase
import VMMBus
import VMMHost
import VMMVirtIO

/// The machine's interrupt routes: 24 IOAPIC pins, then message interrupts, each with an eventfd
/// that the kernel turns into an interrupt. Any thread.
final class InterruptRouter: MessageInterruptSource, InterruptPinSink {
    /// The pins that `KVM_CAP_SPLIT_IRQCHIP` sets aside; also the first free interrupt number.
    static let pinCount = 24
    /// KVM's own limit of routes (KVM_MAX_IRQ_ROUTES).
    private static let maximumRoutes: UInt32 = 4096

    private struct State {
        var routes: [UInt32: InterruptMessage] = [:]
        var next = UInt32(pinCount)
        /// Numbers below `next` that were given back.
        var free: [UInt32] = []
        /// Pins that devices raise without the IOAPIC's help.
        var edges: [Int: PinInterrupt] = [:]
    }

    fileprivate let vm: KVMVirtualMachine
    private let state = Mutex(State())
    /// A guest decides how often it programs what the kernel refuses.
    fileprivate let limiter: LogLimiter

    init(vm: KVMVirtualMachine, limiter: LogLimiter) {
        self.vm = vm
        self.limiter = limiter
    }

    func makeMessageInterrupt() -> any MessageInterrupt {
        RoutedInterrupt(router: self)
    }

    /// The input of a pin (0 to 23) for one edge-triggered device. The kernel delivers it by the
    /// route that the IOAPIC sets, so an interrupt costs no exit to us.
    func makeEdgeInterrupt(pin: Int) throws(HostError) -> any EdgeInterrupt {
        let edge = try PinInterrupt()
        try vm.attach(edge.event, toInterrupt: UInt32(clamping: pin))
        state.withLock { $0.edges[pin] = edge }
        return edge
    }

    /// A number for one more interrupt; nil when the kernel's table is full.
    fileprivate func allocate() -> UInt32? {
        state.withLock { state in
            if let gsi = state.free.popLast() { return gsi }
            guard state.next < Self.maximumRoutes else { return nil }
            defer { state.next += 1 }
            return state.next
        }
    }

    /// The number's eventfd is not bound to it any more.
    fileprivate func release(_ gsi: UInt32) {
        setRoute(gsi, nil)
        state.withLock { $0.free.append(gsi) }
    }

    /// Sets or removes one route and hands the whole table to the kernel, as its interface wants.
    fileprivate func setRoute(_ gsi: UInt32, _ message: InterruptMessage?) {
        state.withLock { state in
            guard state.routes[gsi] != message else { return }
            let before = state.routes[gsi]
            state.routes[gsi] = message
            do throws(HostError) {
                // Under the lock, so that two changes reach the kernel in their order.
                try vm.setRoutes(state.routes)
            } catch {
                // The kernel takes all routes or none: one that it refuses must not stay.
                state.routes[gsi] = before
                limiter.warn("interrupt \(gsi): \(error)")
            }
        }
    }

    func route(pin: Int, _ message: InterruptMessage?) {
        setRoute(UInt32(clamping: pin), message)
        if message != nil { state.withLock { $0.edges[pin] }?.unmasked() }
    }

    func deliver(_ message: InterruptMessage) {
        vm.signal(message)
    }
}

/// An edge-triggered IOAPIC pin.
private final class PinInterrupt: EdgeInterrupt {
    let event: EventFD
    private let action = Mutex<(@Sendable () -> Void)?>(nil)

    init() throws(HostError) {
        event = try EventFD()
    }

    func signal() { event.signal() }
    func signal(through sink: any EventSink) { event.signal(through: sink) }

    func whenUnmasked(_ action: @escaping @Sendable () -> Void) {
        self.action.withLock { $0 = action }
    }

    func unmasked() { action.withLock { $0 }?() }
}

/// One message interrupt; its number and eventfd are made when the guest first programs it.
private final class RoutedInterrupt: MessageInterrupt {
    private struct Binding {
        let gsi: UInt32
        let event: EventFD
    }

    private struct State {
        var binding: Binding?
        /// The function has left the machine: a vCPU that still programs it changes nothing.
        var isReleased = false
    }

    private let router: InterruptRouter
    private let state = Mutex(State())

    init(router: InterruptRouter) {
        self.router = router
    }

    func route(_ message: InterruptMessage?) {
        guard let message else {
            if let gsi = state.withLock({ $0.binding?.gsi }) { router.setRoute(gsi, nil) }
            return
        }
        do {
            guard let gsi = try bind() else { return }
            // Under the lock, or a number that was given back meanwhile would get the route.
            state.withLock { if $0.binding != nil { router.setRoute(gsi, message) } }
        } catch {
            router.limiter.warn("message interrupt: \(error)")
        }
    }

    private func bind() throws -> UInt32? {
        try state.withLock { state in
            if let gsi = state.binding?.gsi { return gsi }
            guard !state.isReleased else { return nil }
            guard let gsi = router.allocate() else {
                router.limiter.warn("no interrupt numbers left")
                return nil
            }
            do {
                let event = try EventFD()
                try router.vm.attach(event, toInterrupt: gsi)
                state.binding = Binding(gsi: gsi, event: event)
                return gsi
            } catch {
                router.release(gsi)
                throw error
            }
        }
    }

    func signal() {
        state.withLock { $0.binding?.event }?.signal()
    }

    func release() {
        state.withLock { state in
            state.isReleased = true
            guard let binding = state.binding else { return }
            state.binding = nil
            do throws(HostError) {
                try router.vm.detach(binding.event, fromInterrupt: binding.gsi)
                router.release(binding.gsi)
            } catch {
                // The number stays bound, and is not used again.
                router.limiter.warn("interrupt \(binding.gsi): \(error)")
            }
        }
    }

    func signal(through sink: any EventSink) {
        state.withLock { $0.binding?.event }?.signal(through: sink)
    }
}

extension InterruptRouter: DoorbellBinder {
    func bind(_ event: EventFD, to doorbell: Doorbell) throws {
        try vm.attach(event, toWritesAt: doorbell.address, of: doorbell.value)
    }

    func unbind(_ event: EventFD, from doorbell: Doorbell) {
        do throws(HostError) {
            try vm.detach(event, fromWritesAt: doorbell.address, of: doorbell.value)
        } catch {
            limiter.debug("doorbell at \(doorbell.address): \(error)")
        }
    }
}
