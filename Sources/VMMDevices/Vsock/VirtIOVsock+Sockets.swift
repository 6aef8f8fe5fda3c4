import VMMBase
import VMMHost
import VMMVirtIO

// The host's sockets.
extension VirtIOVsock {
    /// Where ports of clients of the host begin: below, programs of the host listen.
    static let firstHostPort: UInt32 = 1 << 30
    private static let lastHostPort: UInt32 = (1 << 31) - 1
    /// Clients that have connected and said nothing yet; more of them wait to be accepted.
    private static let mostGreeting = 256
    /// Bytes that are read of a client that makes no sense.
    private static let nonsense = 4096
    /// Clients accepted in one turn.
    private static let acceptTurn = 64
    /// As long as a Linux guest waits for a connection by default: 2 s.
    private static let mostAttempts = 200

    // MARK: host to guest

    var canAccept: Bool { table.greetingCount < Self.mostGreeting && !table.isFull }

    /// Accepts waiting clients. What does not fit waits on, until a connection ends.
    func acceptClients() {
        for _ in 0..<Self.acceptTurn where canAccept {
            do throws(HostError) {
                guard let client = try listener.next() else {
                    mayAccept = false
                    return
                }
                let connection = table.insert(.greeting())
                if attach(client, connection) {
                    deadlines.start(
                        .greeting, connection.slot, now: clock.monotonicNanoseconds())
                }
            } catch {
                limiter.warn("\(id): \(error)")
                mayAccept = false
                return
            }
        }
    }

    /// Gives a connection its socket; false when the kernel does not watch it.
    private func attach(_ socket: FileDescriptor, _ connection: VsockConnection) -> Bool {
        do throws(HostError) {
            try set.add(socket, token: connection.token)
            connection.socket = socket
            return true
        } catch {
            limiter.warn("\(id): \(error)")
            if connection.stream.phase == .greeting {
                remove(connection)
            } else {
                abort(connection)
            }
            return false
        }
    }

    /// Looks at what a new client says. The line is taken out of the socket when it is complete,
    /// so that what follows it stays there for the guest.
    private func readLine(_ connection: VsockConnection) {
        guard let socket = connection.socket else { return }
        headerBytes.removeAll(keepingCapacity: true)
        let limit = ConnectLine.maximumByteCount
        switch socket.receive(into: &headerBytes, limit: limit, isPeek: true) {
        case .moved: break
        case .wouldBlock: return
        case .endOfFile, .failed: return remove(connection)
        }
        switch ConnectLine(headerBytes) {
        case .incomplete:
            if connection.isHungUp { remove(connection) }
        case .malformed:
            limiter.warn("\(id): a client did not say 'CONNECT <port>'")
            // A socket that is closed with bytes unread is an error on the other side, no end.
            _ = socket.receive(into: &headerBytes, limit: Self.nonsense, isPeek: false)
            remove(connection)
        case .port(let port, let byteCount):
            _ = socket.receive(into: &headerBytes, limit: byteCount, isPeek: false)
            request(port, connection)
        }
    }

    private func request(_ port: UInt32, _ connection: VsockConnection) {
        var key = VsockKey(hostPort: nextHostPort, guestPort: port)
        // There are far more ports than connections.
        while table[key] != nil { key = VsockKey(hostPort: takeHostPort(), guestPort: port) }
        nextHostPort = Self.port(after: key.hostPort)
        deadlines.stop(connection.slot)
        table.begin(connection, .toGuest(key, window: table.window))
        schedule(connection)
    }

    private func takeHostPort() -> UInt32 {
        nextHostPort = Self.port(after: nextHostPort)
        return nextHostPort
    }

    private static func port(after port: UInt32) -> UInt32 {
        port >= lastHostPort ? firstHostPort : port + 1
    }

    /// The guest accepted: the client is told, and what it has said goes on.
    func greet(_ connection: VsockConnection) {
        deadlines.stop(connection.slot)
        let line = Array("OK \(connection.stream.key.hostPort)\n".utf8)
        counters.connections.add()
        connection.isReadable = true
        // The socket is empty, and takes a line. A client that has left has perhaps sent all that
        // it wants the guest to know.
        if connection.socket?.send(line, 0..<line.count) != .moved(line.count) {
            hangUp(connection)
        }
    }

    // MARK: guest to host

    /// The guest asks for a connection.
    func open(_ header: VsockHeader) {
        // A guest that uses ports again has forgotten their earlier connection.
        if let earlier = table[header.guestKey] { detach(earlier) }
        guard !table.isFull else {
            limiter.warn("\(id): more than \(table.limit) connections")
            return refuse(header)
        }
        let connection = table.insert(.toHost(header, window: table.window))
        connect(connection)
        guard connection.stream.phase == .resetting else { return }
        // A refusal takes no slot until the guest has room for it.
        remove(connection)
        refuse(header)
    }

    private func connect(_ connection: VsockConnection) {
        let path = "\(listener.path)_\(connection.stream.key.hostPort)"
        do throws(HostError) {
            let socket = try UnixSocket.connectStream(to: path)
            guard attach(socket, connection) else { return }
            counters.connections.add()
            connection.isReadable = true
            connection.stream.accept()
            schedule(connection)
        } catch {
            // Somebody listens, but too many wait already. The kernel wakes only a connect(2) that
            // waits in a thread of its own: to epoll a socket that is not connected has hung up,
            // and so has one whose backlog was full. So it is tried again, but not for ever.
            if error.wouldBlock, connection.attempts < Self.mostAttempts {
                connection.attempts += 1
                deadlines.start(.retry, connection.slot, now: clock.monotonicNanoseconds())
                return
            }
            if !error.isAbsence, !error.wouldBlock { limiter.warn("\(id): \(error)") }
            abort(connection)
        }
    }

    // MARK: events

    /// Something happened to a connection's socket.
    func handle(_ event: ReadinessSet.Event, _ connection: VsockConnection) {
        if event.isReadable || event.isHungUp { connection.isReadable = true }
        if connection.stream.phase == .greeting {
            connection.isHungUp = event.isHungUp
            return readLine(connection)
        }
        if event.isWritable, !connection.backlog.isEmpty { flush(connection) }
        if event.isHungUp { hangUp(connection) }
        schedule(connection)
    }

    /// Has the set tell when the socket takes bytes again.
    func awaitRoom(_ connection: VsockConnection) {
        guard !connection.awaitsRoom, let socket = connection.socket else { return }
        connection.awaitsRoom = true
        set.change(socket, token: connection.token, [.readable, .writable])
    }

    private func flush(_ connection: VsockConnection) {
        guard let socket = connection.socket else { return }
        let (sent, last) = connection.backlog.send(to: socket, &pool)
        counters.sentBytes.add(UInt64(clamping: sent))
        connection.stream.forward(sent)
        if case .failed = last { return hangUp(connection) }
        guard connection.backlog.isEmpty else { return }
        connection.awaitsRoom = false
        set.change(socket, token: connection.token, .readable)
        closeSending(connection)
        if connection.stream.phase == .detached { remove(connection) }
    }

    /// The host's side takes nothing any more. What it sent before it left is still delivered.
    func hangUp(_ connection: VsockConnection) {
        connection.isHungUp = true
        connection.isReadable = true
        let lost = connection.backlog.count
        connection.backlog.removeAll(&pool)
        connection.stream.forward(lost)
        if connection.stream.phase == .detached { return remove(connection) }
        schedule(connection)
    }

    /// A wait has lasted too long.
    func endWait(_ wait: VsockDeadlines.Wait, _ connection: VsockConnection) {
        switch wait {
        case .greeting:
            limiter.warn("\(id): a client did not say whom it wants in 10 s")
            remove(connection)
        case .retry: connect(connection)
        case .credit:
            if connection.isBlocked { connection.stream.askForCredit() }
            schedule(connection)
        case .request:
            limiter.warn(
                "\(id): the guest did not answer at port \(connection.stream.key.guestPort) in 60 s"
            )
            abort(connection)
        case .close: abort(connection)
        }
    }
}
