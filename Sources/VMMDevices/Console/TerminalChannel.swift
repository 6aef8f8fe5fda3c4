import Synchronization
import VMMHost

/// The process's own standard input and output: the endpoint `tty`. When they are a terminal it
/// is raw from the start to the end of the channel; pipes, files and /dev/null do as well.
package final class TerminalChannel: StreamBacked {
    /// How long a slow reader of the last output may make no progress, in milliseconds: a person
    /// does not notice it, and a pipe's reader gets many turns.
    private static let patience: Int32 = 1000

    private struct State {
        var size: TerminalSize?
        var resized: (@Sendable () -> Void)?
    }

    let stream = StreamChannel("tty", failure: .discardsOutput)
    private let input: ByteStream?
    private let output: ByteStream
    private let state: Mutex<State>

    /// Fails where the process has no standard output. Without `takesInput` the terminal stays as
    /// it is and only shows output.
    package init(takesInput: Bool) throws(EndpointError) {
        do throws(HostError) {
            output = try .standardOutput()
        } catch {
            throw EndpointError("tty", error)
        }
        // A process without standard input has no input, which is no error.
        input = takesInput ? try? ByteStream.standardInput() : nil
        state = Mutex(State(size: Self.currentSize()))
    }

    private static func currentSize() -> TerminalSize? {
        let size =
            FileDescriptor.standardOutput.windowSize
            ?? FileDescriptor.standardInput.windowSize
        return size.flatMap(TerminalSize.init(known:))
    }

    package func start(on loop: EventLoop, receive: (@Sendable ([UInt8]) -> Void)?) throws {
        let source = receive == nil ? nil : input
        if source != nil {
            do throws(HostError) {
                try TerminalSettings.makeRaw(.standardInput)
            } catch {
                throw EndpointError("tty", error)
            }
        }
        stream.start(on: loop, receive: receive)
        stream.connect(StreamChannel.Connection(input: source, output: output))
    }

    package func finish() {
        stream.finish(patience: Self.patience)
        TerminalSettings.restoreAll()
    }

    package var size: TerminalSize? { state.withLock { $0.size } }

    package func onResize(_ handler: @escaping @Sendable () -> Void) {
        state.withLock { $0.resized = handler }
    }

    package func terminalResized() {
        let now = Self.currentSize()
        let handler = state.withLock { state -> (@Sendable () -> Void)? in
            if now == state.size { return nil }
            state.size = now
            return state.resized
        }
        handler?()
    }
}
