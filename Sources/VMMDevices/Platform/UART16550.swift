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
    private let loop: EventLoop?
    /// Changes of the line that one thread carries out in a row. More come only from vCPUs that
    /// move it without end: they have the loop go on with them after its other work.
    private static let stepsPerTurn = 16

    /// The port's range on the bus, in bytes.
    package static let byteCount: UInt64 = 8

    /// `line` is edge-triggered: IRQ 4 for the first port. The channel is started by its owner, who
    /// brings its input. `loop` takes over what a thread should not go on with.
    package init(line: any InterruptLine, channel: any ByteChannel, loop: EventLoop? = nil) {
        self.line = line
        self.channel = channel
        self.loop = loop
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
        let tellsChannel: Bool

        init(settling state: inout UARTState) {
            state.settle()
            drivesLine = state.line.beginDriving()
            tellsChannel = state.pause.beginTelling()
        }
    }

    private func perform(_ effect: Effect) {
        if effect.drivesLine { driveLine() }
        if effect.tellsChannel {
            while let isPaused = state.withLock({ $0.pause.next() }) {
                channel.setInputPaused(isPaused)
            }
        }
    }

    private func driveLine() {
        var steps = 0
        while let step = state.withLock({ $0.line.nextStep() }) {
            step.apply(to: line)
            steps += 1
            guard steps == Self.stepsPerTurn, let loop else { continue }
            if loop.post({ [self] in driveLine() }) { return }
        }
    }
}
