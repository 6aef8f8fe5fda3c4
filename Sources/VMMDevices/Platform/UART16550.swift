import Synchronization
import VMMBase
import VMMBus
import VMMHost

/// A 16550A serial port (National Semiconductor PC16550D), as Linux's 8250 driver detects it. Its
/// transmitter is never busy: bytes go to the channel at once. Registers are bytes; a wider access
/// reaches the first one. Any thread.
package final class UART16550: BusDevice {
    private let line: any InterruptLine
    private let channel: any ByteChannel
    private let state = Mutex(UARTState())

    /// The port's range on the bus, in bytes.
    package static let byteCount: UInt64 = 8

    /// `line` is edge-triggered: IRQ 4 for the first port.
    package init(line: any InterruptLine, channel: any ByteChannel) {
        self.line = line
        self.channel = channel
    }

    /// Starts the channel, with this port as the one who takes its input. Called once, by the owner
    /// of the loop before it runs, or on its thread.
    package func startChannel(on loop: EventLoop) throws {
        try channel.start(on: loop) { [weak self] bytes in self?.receive(bytes) }
    }

    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        let (value, effect) = state.withLock { state -> (UInt8, Effect) in
            let value = state.read(UInt8(truncatingIfNeeded: offset))
            return (value, Effect(settling: &state))
        }
        perform(effect)
        return UInt64(value)
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        let (sent, effect) = state.withLock { state -> (UInt8?, Effect) in
            let sent = state.write(
                UInt8(truncatingIfNeeded: offset), UInt8(truncatingIfNeeded: value))
            return (sent, Effect(settling: &state))
        }
        if let sent { channel.send(sent) }
        perform(effect)
    }

    /// Takes input from the host. What exceeds the bound is lost, but the channel is paused before.
    package func receive(_ bytes: [UInt8]) {
        // A lone line feed, as line-oriented clients send for the Enter key, means a carriage
        // return (the reference does so for Windows' emergency console).
        let input = bytes == [0x0a] ? [0x0d] : bytes
        let effect = state.withLock { state -> Effect in
            state.enqueue(input)
            return Effect(settling: &state)
        }
        perform(effect)
    }

    /// Back to power-on; input that waits is dropped.
    package func reset() {
        let effect = state.withLock { state -> Effect in
            state.reset()
            return Effect(settling: &state)
        }
        perform(effect)
    }

    /// What is left to do when the lock has been released.
    private struct Effect {
        let drivesLine: Bool
        let pause: Bool?

        init(settling state: inout UARTState) {
            state.line.set(state.cause != nil)
            drivesLine = state.line.beginDriving()
            pause = state.pauseChange()
        }
    }

    private func perform(_ effect: Effect) {
        if effect.drivesLine {
            while let step = state.withLock({ $0.line.nextStep() }) { step.apply(to: line) }
        }
        if let pause = effect.pause { channel.setInputPaused(pause) }
    }
}
