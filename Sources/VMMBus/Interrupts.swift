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

/// The way of one message-signalled vector into the guest. Any thread.
package protocol MessageInterrupt: AnyObject, Sendable {
    /// Sets what `signal` delivers; nil while the guest has not programmed it.
    func route(_ message: InterruptMessage?)
    func signal()
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
