import VMMBase
import VMMHost
import VMMVirtIO

// From the guest to the host.
extension VirtIOVsock {
    /// Bytes moved in one turn before others on the loop have theirs; in each direction.
    static let turnByteCount = 1 << 20

    /// Takes packets of the guest, a queue's worth at most.
    func takePackets() throws(GuestFault) {
        guard let queue = transmit, let chain = transmitChain else { return }
        isTransmitHeld = false
        var packets = queue.size
        var bytes = Self.turnByteCount
        repeat {
            queue.suppressDoorbell()
            while packets > 0, bytes > 0, !refusals.isFull, try queue.pop(into: chain) {
                packets -= 1
                bytes -= takePacket(chain.readable)
                queue.push(chain, written: 0)
            }
            // The receive queue has to move first.
            if refusals.isFull { isTransmitHeld = true }
        } while packets > 0 && bytes > 0 && !isTransmitHeld && queue.armDoorbell()
        queue.notify()
        if packets == 0 || bytes <= 0 { queue.serviceAgain() }
    }

    /// Takes one packet and returns the bytes of its payload. Room for a refusal is there.
    private func takePacket(_ packet: GuestVector) -> Int {
        headerBytes.removeAll(keepingCapacity: true)
        packet.copyOut(into: &headerBytes, limit: VsockHeader.byteCount)
        guard let header = VsockHeader(headerBytes), header.sourceCID == guest,
            header.destinationCID == VsockHeader.hostCID
        else {
            counters.dropped.add()
            return 0
        }
        counters.sentPackets.add()
        guard header.type == VsockHeader.stream else {
            refuse(header)
            return 0
        }
        packet.removeFirst(VsockHeader.byteCount)
        if header.operation == VsockHeader.Operation.request {
            if header.destinationPort == Self.readyPort { tellReady() }
            open(header)
        } else if let connection = table[header.guestKey] {
            return take(header, packet, connection)
        } else {
            refuse(header)
        }
        return 0
    }

    private func tellReady() {
        if hasToldReady { return }
        hasToldReady = true
        guestIsReady?()
    }

    /// Answers with a reset what belongs to no connection; a reset itself is never answered.
    func refuse(_ header: VsockHeader) {
        guard header.operation != VsockHeader.Operation.reset, !refusals.isFull else { return }
        refusals.append(header.refusal)
    }

    private func take(
        _ header: VsockHeader, _ packet: GuestVector, _ connection: VsockConnection
    ) -> Int {
        let isData = header.operation == VsockHeader.Operation.data
        guard !isData || UInt64(header.length) <= packet.byteCount else {
            abort(connection)
            return 0
        }
        var moved = 0
        switch connection.stream.receive(header) {
        case .nothing: break
        case .open: greet(connection)
        case .deliver:
            packet.truncate(to: UInt64(header.length))
            moved = Int(header.length)
            forward(packet, connection)
        case .shutDown: shutDown(connection)
        case .ended: detach(connection)
        case .violation: abort(connection)
        }
        schedule(connection)
        return moved
    }

    /// Gives a payload to the host's socket; what that does not take waits in the backlog, for
    /// which the guest's credit says that there is room.
    private func forward(_ payload: GuestVector, _ connection: VsockConnection) {
        let count = Int(clamping: payload.byteCount)
        guard let socket = connection.socket, !connection.isHungUp else {
            // Nobody takes it, which the guest has been told.
            connection.stream.forward(count)
            return
        }
        if connection.backlog.isEmpty, count > 0 {
            switch socket.send(payload) {
            case .moved(let moved):
                counters.sentBytes.add(UInt64(clamping: moved))
                connection.stream.forward(moved)
                payload.removeFirst(moved)
            case .wouldBlock: break
            case .endOfFile, .failed:
                connection.stream.forward(count)
                return hangUp(connection)
            }
        }
        guard !payload.isEmpty else { return }
        connection.backlog.append(payload, &pool)
        awaitRoom(connection)
    }

    /// The guest will not send, or not receive, any more.
    private func shutDown(_ connection: VsockConnection) {
        if connection.stream.guestShutdown.contains(.receiving) {
            connection.socket?.shutDown(.receiving)
        }
        closeSending(connection)
        // It wants neither: the answer is a reset, and what the host has not read yet goes there
        // all the same.
        if connection.stream.guestShutdown == .both { connection.stream.reset() }
    }

    /// Tells the host's side that no more comes, once all that came before is there.
    func closeSending(_ connection: VsockConnection) {
        let isDone =
            connection.stream.guestShutdown.contains(.sending) && connection.backlog.isEmpty
        guard isDone, !connection.isSendingShut else { return }
        connection.isSendingShut = true
        connection.socket?.shutDown(.sending)
    }

    // MARK: ends

    /// Gives the connection its turn of the receive queue if it wants one.
    func schedule(_ connection: VsockConnection) {
        watchCredit(connection)
        // Told at once only if there is no end to read, which would be told with it.
        if connection.isHungUp, !connection.canDeliver { connection.stream.shutDown(.receiving) }
        if connection.wantsTurn { ready.append(connection.slot) }
    }

    /// A guest that has no room, and does not say so when it has some, is asked.
    private func watchCredit(_ connection: VsockConnection) {
        let isWaiting = deadlines.isWaiting(for: .credit, connection.slot)
        if !connection.isBlocked {
            if isWaiting { deadlines.stop(connection.slot) }
        } else if !isWaiting, !connection.stream.hasAskedForCredit {
            deadlines.start(.credit, connection.slot, now: clock.monotonicNanoseconds())
        }
    }

    /// Ends a connection at once, with a reset for the guest.
    func abort(_ connection: VsockConnection) {
        connection.backlog.removeAll(&pool)
        connection.socket = nil
        deadlines.stop(connection.slot)
        connection.stream.reset()
        schedule(connection)
    }

    /// The guest has no part in the connection any more. Its last bytes still go to the host.
    func detach(_ connection: VsockConnection) {
        table.detach(connection)
        ready.remove(connection.slot)
        deadlines.stop(connection.slot)
        connection.stream.detach()
        if connection.backlog.isEmpty || connection.isHungUp { remove(connection) }
    }

    /// Forgets a connection, and closes its socket.
    func remove(_ connection: VsockConnection) {
        connection.backlog.removeAll(&pool)
        connection.socket = nil
        ready.remove(connection.slot)
        deadlines.stop(connection.slot)
        table.remove(connection)
        mayAccept = true
    }
}
