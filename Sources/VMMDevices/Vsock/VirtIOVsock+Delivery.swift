import VMMBase
import VMMHost
import VMMVirtIO

// From the host to the guest.
extension VirtIOVsock {
    /// The largest payload of one turn of a connection: others have theirs after it.
    private static let payloadByteCount: UInt64 = 64 << 10
    private static let headerByteCount = UInt64(VsockHeader.byteCount)

    /// Fills buffers of the guest with what waits for it, connection after connection.
    func deliver() throws(GuestFault) {
        guard let queue = receive, let room else { return }
        var turns = Int(queue.size)
        var bytes = Self.turnByteCount
        while turns > 0, bytes > 0, refusals.count > 0 || ready.first != nil {
            guard try collectBuffers(queue, byteCount: 1) else { break }
            turns -= 1
            if let refusal = refusals.popFirst() {
                send(refusal, queue)
            } else if let slot = ready.first, let connection = table[slot: slot] {
                ready.remove(slot)
                bytes -= try serve(connection, queue, room)
            }
        }
        queue.notify()
        if turns == 0 || bytes <= 0 { queue.serviceAgain() }
    }

    /// Takes buffers until they hold a payload of so many bytes, or there are no more; false when
    /// there is none at all, and the driver will ring when there is.
    private func collectBuffers(
        _ queue: VirtQueue, byteCount: UInt64
    ) throws(GuestFault) -> Bool {
        queue.suppressDoorbell()
        while payloadRoom < byteCount, let free = waiting.nextFree() {
            guard try queue.pop(into: free) else {
                if waiting.count > 0 { return true }
                if queue.armDoorbell() { continue }
                return false
            }
            guard free.writable.byteCount > Self.headerByteCount else {
                throw GuestFault("receive buffer too small", free.writable.byteCount)
            }
            waiting.addNextFree()
        }
        if waiting.count > 0 { return true }
        // The host gave no memory for the first of them: the next doorbell tries again.
        _ = queue.armDoorbell()
        return false
    }

    private var payloadRoom: UInt64 {
        waiting.byteCount - UInt64(waiting.count) * Self.headerByteCount
    }

    /// One packet, or one read's worth of them. There is a buffer.
    private func serve(
        _ connection: VsockConnection, _ queue: VirtQueue, _ room: GuestVector
    ) throws(GuestFault) -> Int {
        var moved = 0
        if let header = connection.stream.nextPacket(to: guest) {
            send(header, queue)
            switch connection.stream.phase {
            case .detached: detach(connection)
            case .closing: close(connection)
            // From now on it is the guest who lets the client wait.
            case .requested:
                deadlines.start(.request, connection.slot, now: clock.monotonicNanoseconds())
            default: break
            }
        } else if connection.canDeliver {
            let most = min(UInt64(connection.stream.credit.room), Self.payloadByteCount)
            _ = try collectBuffers(queue, byteCount: most)
            moved = read(connection, most, queue, room)
        }
        schedule(connection)
        return moved
    }

    /// Reads from the socket into as many buffers as hold `most` bytes.
    private func read(
        _ connection: VsockConnection, _ most: UInt64, _ queue: VirtQueue, _ room: GuestVector
    ) -> Int {
        guard let socket = connection.socket else { return 0 }
        room.removeAll()
        var index = 0
        while index < waiting.count, room.byteCount < most,
            room.append(waiting[index].writable, skipping: Self.headerByteCount)
        {
            index += 1
        }
        room.truncate(to: most)
        switch socket.read(into: room) {
        case .moved(let count):
            distribute(count, connection, queue)
            return count
        case .wouldBlock: connection.isReadable = false
        case .endOfFile:
            connection.isReadable = false
            connection.stream.shutDown(connection.isHungUp ? .both : .sending)
        case .failed:
            // The host's side left with bytes of the guest unread; all of its own were read.
            connection.isReadable = false
            hangUp(connection)
            connection.stream.shutDown(.both)
        }
        return 0
    }

    /// Puts headers before the payload that a read left in the waiting buffers.
    private func distribute(_ count: Int, _ connection: VsockConnection, _ queue: VirtQueue) {
        counters.receivedBytes.add(UInt64(clamping: count))
        var rest = UInt64(count)
        while rest > 0, waiting.count > 0 {
            let part = min(rest, waiting[0].writable.byteCount - Self.headerByteCount)
            rest -= part
            send(
                connection.stream.dataPacket(Int(part), to: guest), queue,
                payloadByteCount: UInt32(truncatingIfNeeded: part))
        }
    }

    /// Fills the first waiting buffer with a packet, whose payload is there already.
    private func send(_ header: VsockHeader, _ queue: VirtQueue, payloadByteCount: UInt32 = 0) {
        if headerBytes.count != VsockHeader.byteCount {
            headerBytes.removeAll(keepingCapacity: true)
            headerBytes.append(contentsOf: repeatElement(0, count: VsockHeader.byteCount))
        }
        header.encode(into: &headerBytes)
        let buffer = waiting.removeFirst()
        buffer.writable.copyIn(headerBytes)
        queue.push(buffer, written: UInt32(VsockHeader.byteCount) + payloadByteCount)
        counters.receivedPackets.add()
        if header.operation == VsockHeader.Operation.reset { counters.resets.add() }
    }

    /// Both ways are shut, and the guest knows: only its confirmation is missing.
    private func close(_ connection: VsockConnection) {
        connection.backlog.removeAll(&pool)
        connection.socket = nil
        deadlines.start(.close, connection.slot, now: clock.monotonicNanoseconds())
    }
}
