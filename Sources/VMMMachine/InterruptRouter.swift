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
    }

    fileprivate let vm: KVMVirtualMachine
    private let state = Mutex(State())
    /// A guest decides how often it programs what the kernel refuses.
    fileprivate let limiter: LogLimiter

    init(vm: KVMVirtualMachine, clock: any HostClock) {
        self.vm = vm
        limiter = LogLimiter(clock: clock)
    }

    func makeMessageInterrupt() -> any MessageInterrupt {
        RoutedInterrupt(router: self)
    }

    /// A number for one more interrupt; nil when the kernel's table is full.
    fileprivate func allocate() -> UInt32? {
        state.withLock { state in
            guard state.next < Self.maximumRoutes else { return nil }
            defer { state.next += 1 }
            return state.next
        }
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
    }

    func deliver(_ message: InterruptMessage) {
        vm.signal(message)
    }
}

/// One message interrupt; its number and eventfd are made when the guest first programs it.
private final class RoutedInterrupt: MessageInterrupt {
    private struct Binding {
        let gsi: UInt32
        let event: EventFD
    }

    private let router: InterruptRouter
    private let binding = Mutex<Binding?>(nil)

    init(router: InterruptRouter) {
        self.router = router
    }

    func route(_ message: InterruptMessage?) {
        guard let message else {
            if let gsi = binding.withLock({ $0?.gsi }) { router.setRoute(gsi, nil) }
            return
        }
        do {
            guard let gsi = try bind() else { return }
            router.setRoute(gsi, message)
        } catch {
            router.limiter.warn("message interrupt: \(error)")
        }
    }

    private func bind() throws -> UInt32? {
        if let gsi = binding.withLock({ $0?.gsi }) { return gsi }
        guard let gsi = router.allocate() else {
            router.limiter.warn("no interrupt numbers left")
            return nil
        }
        let event = try EventFD()
        try router.vm.attach(event, toInterrupt: gsi)
        binding.withLock { $0 = Binding(gsi: gsi, event: event) }
        return gsi
    }

    func signal() {
        binding.withLock { $0?.event }?.signal()
    }
}

extension KVMVirtualMachine: DoorbellBinder {
    package func bind(_ event: EventFD, toWritesAt address: GuestAddress) throws {
        try attach(event, toWritesAt: address)
    }

    package func unbind(_ event: EventFD, fromWritesAt address: GuestAddress) {
        do throws(HostError) {
            try detach(event, fromWritesAt: address)
        } catch {
            Log.debug("doorbell at \(address): \(error)")
        }
    }
}
