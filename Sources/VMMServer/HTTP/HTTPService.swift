import VMMBase
import VMMHost

/// The clients of a server, and the socket they come from. Belongs to the server's loop.
final class HTTPService {
    /// Of one user, for the socket is his alone: far more than tools have open at once.
    static let clientLimit = 256
    /// What bodies that are on their way, or at work, may take together.
    static let bodyLimit = 16 << 20
    /// Clients taken before those that are there have their turn.
    private static let acceptsPerTurn = 32

    private struct Client {
        let connection: HTTPConnection
        /// Grows with each request that anybody sends.
        var lastUse: UInt64
    }

    private let loop: EventLoop
    private let listener: UnixListener
    private let handler: @Sendable (HTTPCall) -> Void
    private var clients: [UInt64: Client] = [:]
    private var nextName: UInt64 = 0
    private var heldByteCount = 0
    /// How others reach this object: by a message to the loop.
    private var address: LoopBound<Weak>?

    private struct Weak {
        weak var service: HTTPService?
    }

    init(
        _ loop: EventLoop, _ listener: UnixListener, handler: @escaping @Sendable (HTTPCall) -> Void
    ) {
        self.loop = loop
        self.listener = listener
        self.handler = handler
        address = LoopBound(adopting: Weak(service: self))
    }

    /// Begins to serve. On the loop's thread.
    func start() throws(HostError) {
        // Edge-triggered, or a process without descriptors would turn around a waiting client.
        try loop.add(listener.descriptor, [.readable, .edgeTriggered]) { [unowned self] in accept()
        }
    }

    /// Lets all clients go.
    func end() {
        loop.remove(listener.descriptor)
        for (name, client) in clients {
            client.connection.lines?.end()
            _ = client.connection.proceed()
            end(name)
        }
    }

    /// Comes back to this object later, on the loop.
    private func later(_ body: @escaping @Sendable (HTTPService) -> Void) {
        guard let address else { return }
        loop.post { address.withValue { $0.service.map(body) } }
    }

    // MARK: clients

    private func accept() {
        for _ in 0..<Self.acceptsPerTurn {
            do throws(HostError) {
                guard let socket = try listener.next() else { return }
                try add(socket)
            } catch {
                // The client waits until another one's end makes room.
                return Log.warning("api: \(error)")
            }
        }
        later { $0.accept() }
    }

    private func add(_ socket: FileDescriptor) throws(HostError) {
        if clients.count >= Self.clientLimit { dropIdle() }
        let connection = HTTPConnection(socket)
        guard clients.count < Self.clientLimit else {
            connection.refuse(HTTPError(.serviceUnavailable, "there are too many clients"))
            _ = connection.proceed()
            return
        }
        let name = nextName
        nextName += 1
        try loop.add(socket, [.readable, .writable, .edgeTriggered]) { [unowned self] in
            proceed(name)
        }
        clients[name] = Client(connection: connection, lastUse: name)
    }

    /// The one that has said nothing for the longest time makes room.
    private func dropIdle() {
        let idle = clients.filter { $0.value.connection.isIdle }
        if let name = idle.min(by: { $0.value.lastUse < $1.value.lastUse })?.key { end(name) }
    }

    private func end(_ name: UInt64) {
        guard let client = clients.removeValue(forKey: name) else { return }
        heldByteCount -= client.connection.heldByteCount
        client.connection.lines?.leave()
        loop.remove(client.connection.socket)
        // Somebody may wait for the descriptor that is free now.
        later { $0.accept() }
    }

    private func proceed(_ name: UInt64) {
        guard let connection = clients[name]?.connection else { return }
        let before = connection.heldByteCount
        var need = connection.proceed()
        heldByteCount += connection.heldByteCount - before
        if heldByteCount > Self.bodyLimit, connection.heldByteCount > 0, !connection.isAnswering {
            heldByteCount -= connection.heldByteCount
            connection.refuse(
                HTTPError(.serviceUnavailable, "others' requests take all the room"))
            need = connection.proceed()
        }
        switch need {
        case .nothing: break
        case .turn: later { $0.proceed(name) }
        case .end: end(name)
        case .answer(let request, let descriptors):
            clients[name]?.lastUse = nextName
            nextName += 1
            handler(call(request, descriptors, name))
        }
    }

    private func call(
        _ request: HTTPRequest, _ descriptors: [FileDescriptor], _ name: UInt64
    ) -> HTTPCall {
        HTTPCall(request, descriptors: descriptors) { [loop, address] answer in
            loop.post { address?.withValue { $0.service?.give(name, answer) } }
        }
    }

    private func give(_ name: UInt64, _ answer: HTTPAnswer) {
        guard let connection = clients[name]?.connection else {
            if case .lines(let lines) = answer { lines.leave() }
            return
        }
        heldByteCount -= connection.heldByteCount
        switch answer {
        case .whole(let response): connection.answer(response)
        case .lines(let lines):
            connection.answer(lines)
            lines.begin { [loop, address] in
                loop.post { address?.withValue { $0.service?.proceed(name) } }
            }
        }
        proceed(name)
    }
}
