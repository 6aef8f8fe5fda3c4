import Synchronization
import VMMBase
import VMMHost

/// An HTTP/1.1 server on a Unix socket, on a thread of its own. Any thread may use it.
package final class HTTPServer: Sendable {
    private let thread: LoopThread
    private let service: LoopBound<HTTPService>
    private let listener: UnixListener
    /// What keeps others off the socket's path is held as long as the socket is served.
    private let lock: FileDescriptor?
    private let isOver = Atomic<Bool>(false)

    /// Serves clients of `listener`. `handler` is called on the server's thread and must not wait:
    /// it answers, or hands the call over to somebody who will.
    package init(
        _ listener: UnixListener, lock: FileDescriptor? = nil,
        handler: @escaping @Sendable (HTTPCall) -> Void
    ) throws(HostError) {
        self.listener = listener
        self.lock = lock
        thread = try LoopThread(name: "api", role: .api)
        let service = LoopBound(
            adopting: HTTPService(thread.loop, listener, handler: handler))
        self.service = service
        let failure = Mutex<HostError?>(nil)
        thread.run {
            do {
                try service.withValue { try $0.start() }
            } catch {
                failure.withLock { $0 = error as? HostError }
            }
        }
        guard let error = failure.withLock({ $0 }) else { return }
        thread.end()
        throw error
    }

    /// Sends the answers that were given, as far as their clients take them, and ends. The
    /// socket's file goes. Again is no harm.
    package func end() {
        guard !isOver.exchange(true, ordering: .acquiringAndReleasing) else { return }
        listener.removeFile()
        thread.run { [service] in service.withValue { $0.end() } }
        thread.end()
    }
}
