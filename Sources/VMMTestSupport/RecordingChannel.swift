import Synchronization
import VMMDevices
import VMMHost

/// A channel that remembers output and lets a test make input. Any thread.
package final class RecordingChannel: ByteChannel {
    private struct State {
        var sent: [UInt8] = []
        var sendCount = 0
        var pauses: [Bool] = []
        var size: TerminalSize?
        var receive: (@Sendable ([UInt8]) -> Void)?
        var resized: (@Sendable () -> Void)?
        var isFinished = false
    }

    private let state = Mutex(State())

    package init(size: TerminalSize? = nil) {
        state.withLock { $0.size = size }
    }

    /// All that was sent.
    package var sent: [UInt8] { state.withLock { $0.sent } }
    /// In how many calls.
    package var sendCount: Int { state.withLock { $0.sendCount } }
    package var isPaused: Bool { state.withLock { $0.pauses.last ?? false } }
    /// What the input was told, in order: true to pause, false to go on.
    package var pauses: [Bool] { state.withLock { $0.pauses } }
    package var isFinished: Bool { state.withLock { $0.isFinished } }

    /// Delivers input on the calling thread, once the channel was started.
    package func deliver(_ bytes: [UInt8]) { state.withLock { $0.receive }?(bytes) }

    /// Changes the size, as a user does to a window.
    package func resize(_ size: TerminalSize?) {
        state.withLock { $0.size = size }
        terminalResized()
    }

    package func send(_ byte: UInt8) { send([byte]) }

    package func send(_ bytes: [UInt8]) {
        state.withLock { state in
            state.sent += bytes
            state.sendCount += 1
        }
    }

    package func start(on loop: EventLoop, receive: (@Sendable ([UInt8]) -> Void)?) {
        state.withLock { $0.receive = receive }
    }

    package func setInputPaused(_ paused: Bool) { state.withLock { $0.pauses.append(paused) } }
    package func finish() { state.withLock { $0.isFinished = true } }
    package var size: TerminalSize? { state.withLock { $0.size } }

    package func onResize(_ handler: @escaping @Sendable () -> Void) {
        state.withLock { $0.resized = handler }
    }

    package func terminalResized() { state.withLock { $0.resized }?() }
}
