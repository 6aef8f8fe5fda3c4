import VMMHost

/// A Unix socket that one client at a time connects to; a new client replaces the one before.
/// Output without a client waits for the next, up to 1 MiB.
package final class SocketChannel: StreamBacked {
    let stream: StreamChannel
    private let listener: UnixListener

    /// The socket's file.
    package var path: String { listener.path }

    /// Listens at `path`; a socket file whose owner is gone is replaced.
    package init(path: String) throws(EndpointError) {
        stream = StreamChannel("console socket '\(path)'", failure: .disconnects)
        do throws(UnixListener.Failure) {
            listener = try UnixListener(path: path)
        } catch {
            throw EndpointError("console socket", error)
        }
    }

    package func start(on loop: EventLoop, receive: (@Sendable ([UInt8]) -> Void)?) throws {
        // A client that sends to a console without input must not fill its socket: read and drop.
        stream.start(on: loop, receive: receive ?? { _ in })
        do throws(HostError) {
            try listener.serve(on: loop) { [stream] client in
                guard let connection = try? ByteStream(nonBlocking: client) else { return }
                stream.connect(StreamChannel.Connection(input: connection, output: connection))
            }
        } catch {
            throw EndpointError("console socket '\(path)'", error)
        }
    }

    package func finish() {
        stream.finish(patience: 0)
        listener.removeFile()
    }
}
