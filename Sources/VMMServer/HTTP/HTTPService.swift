import VMMBase
import VMMHost

/// The clients of a server, and the socket they come from. Belongs to the server's loop.
final class HTTPService {
    /// Of one user, for the socket is his alone: far more than tools have open at once.
    static let clientLimit = 256
    /// What bodies that are on their way or at work, and answers that nobody takes, may be
    /// together, in bytes.
    static let byteLimit = 16 << 20
    /// Descriptors of all requests that are on their way. One request may bring nearly as many.
    static let descriptorLimit = 256
    /// Clients taken before those that are there have their turn.
    private static let acceptsPerTurn = 32

    private struct Client {
        let connection: HTTPConnection
        /// Grows whenever anybody sends or takes anything.
        var lastUse: UInt64
    }

    private let loop: EventLoop
    private let listener: UnixListener
    private let handler: @Sendable (HTTPCall) -> Void
    private var clients: [UInt64: Client] = [:]
    private var nextName: UInt64 = 0
    private var heldByteCount = 0
    private var heldDescriptorCount = 0
    private let limiter = LogLimiter(clock: SystemClock())
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
                return limiter.warn("api: \(error)")
            }
        }
        later { $0.accept() }
    }

    private func add(_ socket: FileDescriptor) throws(HostError) {
        if clients.count >= Self.clientLimit { dropOne() }
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

    /// The one that has said nothing for the longest time makes room; where nobody is idle, the one
    /// that has come no further with its request, or its answer, for the longest time.
    private func dropOne() {
        _ = dropLast { $0.isIdle } || dropLast { !$0.isAnswering && $0.lines == nil }
    }

    /// Ends the client that did nothing for the longest time, of those that `matches` names.
    private func dropLast(_ matches: (HTTPConnection) -> Bool) -> Bool {
        let found = clients.filter { matches($0.value.connection) }
            .min { $0.value.lastUse < $1.value.lastUse }
        if let found { end(found.key) }
        return found != nil
    }

    private func end(_ name: UInt64) {
        guard let client = clients.removeValue(forKey: name) else { return }
        heldByteCount -= client.connection.heldByteCount
        heldDescriptorCount -= client.connection.heldDescriptorCount
        client.connection.lines?.leave()
        loop.remove(client.connection.socket)
        // Somebody may wait for the descriptor that is free now.
        later { $0.accept() }
    }

    private func proceed(_ name: UInt64) {
        guard let connection = clients[name]?.connection else { return }
        clients[name]?.lastUse = nextName
        nextName += 1
        var need = counted(connection) { connection.proceed() }
        let isOver =
            heldByteCount > Self.byteLimit && connection.heldByteCount > 0
            || heldDescriptorCount > Self.descriptorLimit && connection.heldDescriptorCount > 0
        if isOver, !connection.isAnswering, !connection.isSending {
            need = counted(connection) {
                connection.refuse(
                    HTTPError(.serviceUnavailable, "others' requests take all the room"))
                return connection.proceed()
            }
        }
        switch need {
        case .nothing: break
        case .turn: later { $0.proceed(name) }
        case .end: end(name)
        case .answer(let request, let descriptors):
            handler(call(request, descriptors, name))
        }
    }

    /// Does what changes what a client makes the process keep.
    private func counted<Result>(_ connection: HTTPConnection, _ body: () -> Result) -> Result {
        let bytes = connection.heldByteCount
        let descriptors = connection.heldDescriptorCount
        defer {
            heldByteCount += connection.heldByteCount - bytes
            heldDescriptorCount += connection.heldDescriptorCount - descriptors
        }
        return body()
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
        switch answer {
        case .whole(let response): counted(connection) { connection.answer(response) }
        case .lines(let lines):
            counted(connection) { connection.answer(lines) }
            lines.begin { [loop, address] in
                loop.post { address?.withValue { $0.service?.proceed(name) } }
            }
        }
        proceed(name)
        // Who takes no answers makes room for those who do.
        while heldByteCount > Self.byteLimit, dropLast({ $0.isSending }) {}
    }
}
