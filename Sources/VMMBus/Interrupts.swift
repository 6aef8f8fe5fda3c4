import VMMBase

/// One input of the interrupt controller. Any thread.
package protocol InterruptLine: Sendable {
    /// Drives the line; an edge-triggered input acts on the change to true.
    func set(_ level: Bool)
}

extension InterruptLine {
    /// A short pulse: what an edge-triggered device sends.
    package func pulse() {
        set(true)
        set(false)
    }
}

/// An edge-triggered input of the interrupt controller that interrupts the guest without the
/// monitor's help. Any thread.
package protocol EdgeInterrupt: AnyObject, Sendable {
    /// Sends one edge; while the guest masks the input it is lost.
    func signal()
    /// Sends it when `sink` next hands work to the kernel.
    func signal(through sink: any EventSink)
    /// Has `action` called whenever the guest unmasks the input, so that nothing is lost for good.
    func whenUnmasked(_ action: @escaping @Sendable () -> Void)
}

/// The way of one message-signalled vector into the guest. Any thread.
package protocol MessageInterrupt: AnyObject, Sendable {
    /// Sets what `signal` delivers; nil while the guest has not programmed it.
    func route(_ message: InterruptMessage?)
    func signal()
    /// Signals when `sink` next hands work to the kernel.
    func signal(through sink: any EventSink)
    /// Gives back what the vector took of the machine's; nothing is delivered from now on.
    func release()
}

extension EdgeInterrupt {
    package func signal(through sink: any EventSink) { signal() }
}

extension MessageInterrupt {
    package func signal(through sink: any EventSink) { signal() }
}

/// Where message interrupts come from.
package protocol MessageInterruptSource: Sendable {
    func makeMessageInterrupt() -> any MessageInterrupt
}

/// What an IOAPIC drives: the local APICs behind it. Any thread.
package protocol InterruptPinSink: Sendable {
    /// Tells what pin `pin` would deliver, so that the kernel reports its end of interrupt.
    func route(pin: Int, _ message: InterruptMessage?)
    func deliver(_ message: InterruptMessage)
}
