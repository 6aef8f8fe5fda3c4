import VMMBase
import VMMHost

/// Frames over a stream socket, each behind its length. In the plain format there are no offloads:
/// a frame is whole when it leaves and when it comes. The link is down while there is no peer.
package final class SocketBackend: FrameBackend {
    /// Where a peer comes from.
    package enum Origin {
        /// Clients come to us, one at a time. After one is gone or could not be taken, the next
        /// has to wait a little (`retryNanoseconds`): each is two interrupts of the guest's.
        case listener(UnixListener, retryNanoseconds: UInt64 = 100_000_000)
        /// We go to it, and again each second (`retryNanoseconds`) while it is gone.
        case server(path: String, retryNanoseconds: UInt64 = 1_000_000_000)
        /// A process of ours, which has the other end of a pair and is gone for good when it ends.
        case companion(Passt)
    }

    /// What waits to be sent at most: as much again as the kernel keeps for a socket. More frames
    /// stay in the guest's queue, so that the guest sends no faster than the peer takes.
    private static let queueLimit = 256 << 10
    /// From here on a frame is worth a system call of its own and not a copy.
    private static let directByteCount = 8 << 10
    /// Frames that find no room in a row, before others on the loop have their turn.
    private static let mostDropped = 64

    private let name: String
    private let format: FrameFormat
    private let loop: EventLoop
    private let origin: Origin
    private let limiter: LogLimiter
    private let retry: Timer
    /// Raised when frames wait. It stays the same while connections come and go.
    private let arrival: EventFD
    /// Raised when a frame that found no room may come again.
    private let departure: EventFD
    /// Runs while a frame of the guest waits for room.
    private let patience: Timer
    /// How long frames of the guest wait for a peer that takes nothing; then they are lost, as on a
    /// wire, until it takes some.
    var patienceNanoseconds: UInt64 = 1_000_000_000
    private var connection: FileDescriptor?
    private var reader: FrameReader
    /// The first bytes of the next frame.
    private var head: [UInt8] = []
    /// The next frame is known to be a large one.
    private var announced: Next?
    private var queue = FrameQueue(limit: queueLimit)
    private var waitsForRoom = false
    /// A frame of the guest waits until the queue has room.
    private var isFull = false
    /// The peer has taken nothing for so long that frames are lost until it does.
    private var isStalled = false
    /// It has nothing of the loop: not yet, or not any more.
    private var isDetached = true
    private var offloads: TapInterface.Offloads = []
    /// Frames that were lost on the way out, had no room in the guest's buffers, or have a header
    /// that is none or asks of the driver what it does not do.
    package let losses = FrameLosses()
    package var linkChanged: (() -> Void)?

    /// Serves on `loop` from `attach` on. `connection` is the peer that there is already. `name` is
    /// the device's in the log.
    package init(
        name: String, origin: Origin, connection: FileDescriptor? = nil,
        format: FrameFormat = .plain, loop: EventLoop, clock: any HostClock
    ) throws(HostError) {
        self.format = format
        reader = FrameReader(format)
        self.name = name
        self.loop = loop
        self.origin = origin
        limiter = LogLimiter(clock: clock)
        self.connection = connection
        retry = try Timer()
        arrival = try EventFD()
        departure = try EventFD()
        patience = try Timer()
    }

    package func attach() throws {
        isDetached = false
        if case .companion(let passt) = origin { try passt.start(limiter) }
        try loop.add(retry.descriptor, [.readable, .edgeTriggered]) { [weak self] in
            self?.tryAgain()
        }
        try loop.add(patience.descriptor, [.readable, .edgeTriggered]) { [weak self] in
            self?.endPatience()
        }
        if let connection { try connect(connection) } else { try listen() }
    }

    deinit {
        detach()
        if case .listener(let listener, _) = origin { listener.removeFile() }
    }

    package func detach() {
        // Once: the last hold on a device may be given up on a thread that must not touch the loop.
        guard !isDetached else { return }
        isDetached = true
        loop.remove(retry.descriptor)
        loop.remove(patience.descriptor)
        if let connection { loop.remove(connection) }
        switch origin {
        case .listener(let listener, _): loop.remove(listener.descriptor)
        case .server: break
        case .companion(let passt): passt.detach()
        }
    }

    package func finish() {
        switch origin {
        case .listener(let listener, _): listener.removeFile()
        case .server: break
        case .companion(let passt): passt.finish()
        }
    }

    package var descriptor: FileDescriptor? { arrival.descriptor }
    package var room: FileDescriptor? { departure.descriptor }
    package var isLinkUp: Bool { connection != nil }
    package var offersOffloads: Bool { format == .offloads }

    package func setOffloads(_ offloads: TapInterface.Offloads) { self.offloads = offloads }

    // MARK: connections

    /// The listener is left alone while there is a client: the next one waits.
    private func listen() throws(HostError) {
        guard case .listener(let listener, _) = origin else { return }
        try loop.add(listener.descriptor, [.readable]) { [weak self] in self?.accept(listener) }
    }

    private func accept(_ listener: UnixListener) {
        do throws(HostError) {
            guard let client = try listener.next() else { return }
            loop.remove(listener.descriptor)
            adopt(client)
        } catch {
            loop.remove(listener.descriptor)
            awaitNext("\(error)")
        }
    }

    private func connect(_ peer: FileDescriptor) throws(HostError) {
        try loop.add(peer, [.readable, .edgeTriggered]) { [weak self] in self?.wake() }
        reader.removeAll()
        queue.removeAll()
        waitsForRoom = false
        isStalled = false
        announced = nil
        connection = peer
    }

    private func adopt(_ peer: FileDescriptor) {
        do throws(HostError) {
            try connect(peer)
            limiter.info("\(name): a peer is connected")
            linkChanged?()
        } catch {
            awaitNext("\(error)")
        }
    }

    private func disconnect(_ reason: String) {
        guard let peer = connection else { return }
        loop.remove(peer)
        connection = nil
        // What waits for this peer waits in vain.
        if isFull { admit() }
        linkChanged?()
        awaitNext(reason)
    }

    private func awaitNext(_ reason: String) {
        limiter.warn("\(name): the link is down: \(reason)")
        awaitRetry()
    }

    private func awaitRetry() {
        switch origin {
        case .listener(_, let retryNanoseconds), .server(_, let retryNanoseconds):
            retry.set(nanoseconds: retryNanoseconds)
        case .companion: break
        }
    }

    private func tryAgain() {
        guard connection == nil else { return }
        do throws(HostError) {
            switch origin {
            case .listener: try listen()
            case .server(let path, _): adopt(try UnixSocket.connectStream(to: path))
            case .companion: break
            }
        } catch {
            awaitRetry()
        }
    }

    /// The connection has bytes, room, or an end.
    private func wake() {
        if waitsForRoom { flushQueue() }
        do throws(FramingFault) {
            let next = next()
            switch next {
            case .nothing: return
            case .small: if try hasFrame() { arrival.signal() }
            case .large:
                announced = next
                arrival.signal()
            }
        } catch {
            disconnect("the peer sent \(error)")
        }
    }

    // MARK: guest to peer

    package func send(_ frame: GuestVector) -> Bool {
        let skipped = Int(TapInterface.headerByteCount) - format.headerByteCount
        let byteCount = Int(clamping: frame.byteCount) - skipped
        if format.lengths.contains(byteCount), !queue.hasRoom(for: byteCount) {
            flush()
            if connection != nil, !isStalled, !queue.hasRoom(for: byteCount) {
                awaitRoom()
                return false
            }
        }
        frame.removeFirst(skipped)
        guard connection != nil, format.lengths.contains(byteCount) else {
            drop()
            return true
        }
        if byteCount >= Self.directByteCount, sendDirectly(frame) { return true }
        if !queue.append(frame) { drop() }
        return true
    }

    private func awaitRoom() {
        if isFull { return }
        isFull = true
        patience.set(nanoseconds: patienceNanoseconds)
    }

    /// The frame that waits may come again.
    private func admit() {
        isFull = false
        patience.clear()
        departure.signal()
    }

    private func endPatience() {
        guard isFull else { return }
        limiter.warn("\(name): the peer takes nothing: frames are lost")
        isStalled = true
        admit()
    }

    /// The peer has taken bytes. A frame that waits comes when half the queue is free: then others
    /// come with it.
    private func noteProgress() {
        isStalled = false
        guard isFull else { return }
        if queue.byteCount <= Self.queueLimit / 2 {
            admit()
        } else {
            patience.set(nanoseconds: patienceNanoseconds)
        }
    }

    /// Sends a large frame from guest memory. False if others wait before it or the socket takes
    /// nothing now.
    private func sendDirectly(_ frame: GuestVector) -> Bool {
        flush()
        guard queue.isEmpty, let peer = connection,
            case .moved(let count) = peer.sendRecord(frame)
        else { return false }
        queue.append(restOf: frame, after: count)
        return true
    }

    package func flush() {
        // A socket without room tells when it has some.
        if !waitsForRoom { flushQueue() }
    }

    private func flushQueue() {
        guard let peer = connection, !queue.isEmpty else { return }
        let before = queue.byteCount
        let result = queue.flush(to: peer)
        if queue.byteCount < before { noteProgress() }
        switch result {
        case .moved: waitForRoom(false)
        case .wouldBlock: waitForRoom(true)
        case .endOfFile: disconnect("the peer is gone")
        case .failed(let code): disconnect(HostError("send", code: code).reason)
        }
    }

    private func waitForRoom(_ waits: Bool) {
        guard let peer = connection, waits != waitsForRoom else { return }
        waitsForRoom = waits
        loop.change(
            peer,
            to: waits ? [.readable, .writable, .edgeTriggered] : [.readable, .edgeTriggered])
    }

    private func drop() { losses.add() }

    // MARK: peer to guest

    package func receive(into room: GuestVector) -> Int? {
        do throws(FramingFault) {
            for _ in 0..<Self.mostDropped {
                switch next() {
                case .nothing: return nil
                case .small: break
                case .large(let header, let byteCount):
                    if let count = receive(header, byteCount, into: room) { return count }
                }
                guard try hasFrame(), let frame = try reader.next() else { return nil }
                let verdict = reader.judge(frame, accepting: offloads)
                if verdict == .sound, let count = reader.copy(frame, into: room) { return count }
                drop()
                if verdict == .unwanted {
                    limiter.warn("\(name): a frame with offloads that the driver does not take")
                }
            }
            arrival.signal()
        } catch {
            disconnect("the peer sent \(error)")
        }
        return nil
    }

    /// What the socket has next.
    private enum Next {
        case nothing
        /// Frames that come together with others, or an end.
        case small
        /// A large frame, all of it; how many bytes it has with its header.
        case large(OffloadHeader, byteCount: Int)
    }

    /// Looks at the socket, where no part of a frame has left it.
    private func next() -> Next {
        if let announced {
            self.announced = nil
            return announced
        }
        guard format == .offloads, reader.isEmpty, let peer = connection else { return .small }
        let headCount = FrameLength.prefix + format.headerByteCount
        head.removeAll(keepingCapacity: true)
        switch peer.receive(into: &head, limit: headCount, isPeek: true) {
        case .wouldBlock: return .nothing
        case .moved(headCount): break
        default: return .small
        }
        let record = FrameReader.record(at: 0, in: head).count
        let byteCount = record - FrameLength.prefix
        guard byteCount >= Self.directByteCount, format.lengths.contains(byteCount),
            peer.readableByteCount >= record
        else { return .small }
        return .large(OffloadHeader(head, at: FrameLength.prefix), byteCount: byteCount)
    }

    /// Has the kernel write a large frame to guest memory; nil where the frame has to be dropped,
    /// as others are.
    private func receive(
        _ header: OffloadHeader, _ byteCount: Int, into room: GuestVector
    ) -> Int? {
        guard let peer = connection, room.byteCount >= UInt64(byteCount),
            header.verdict(
                frameByteCount: byteCount - format.headerByteCount, accepting: offloads) == .sound
        else { return nil }
        room.limit(to: UInt64(byteCount))
        let result = peer.receiveRecord(into: room)
        room.unlimit()
        switch result {
        case .moved(FrameLength.prefix + byteCount): break
        // Memory in more pieces than one call takes.
        case .wouldBlock: return nil
        // All was there: a peer that sends descriptors along cuts its stream in two.
        default:
            disconnect("the peer sent a frame in pieces")
            return nil
        }
        header.write(to: &head, at: FrameLength.prefix)
        let bytes = head
        room.copyIn(bytes.span.extracting(FrameLength.prefix..<bytes.count))
        return byteCount
    }

    /// Reads until a whole frame is there or the socket is empty. The frames before a peer's end
    /// are all taken before the end is seen.
    private func hasFrame() throws(FramingFault) -> Bool {
        while try reader.first() == nil {
            guard let peer = connection else { return false }
            switch reader.fill(from: peer) {
            case .moved: continue
            case .wouldBlock: return false
            case .endOfFile: disconnect("the peer is gone")
            case .failed(let code): disconnect(HostError("receive", code: code).reason)
            }
        }
        return true
    }
}
