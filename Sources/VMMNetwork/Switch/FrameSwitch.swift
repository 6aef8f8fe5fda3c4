import VMMBase
import VMMHost

/// A switch whose ports are connections to Unix sockets, with frames behind their lengths. It
/// sleeps while no frame comes. Belongs to its loop's thread.
package final class FrameSwitch {
    /// Ports at a time: each takes up to 640 KiB, and shares `sharedLimit` with the others.
    package static let portLimit = 256
    /// In bytes: while all ports together have less waiting, one may have more than its share.
    private let sharedLimit: Int
    /// How often one port's frames are handed on before other ports have their turn: about a
    /// millisecond's worth. Among few ports a whole read has fewer.
    private static let turnDeliveryCount = 16384

    private let format: FrameFormat
    private let loop: EventLoop
    private let clock: any HostClock
    private let limiter: LogLimiter
    private var listeners: [UnixListener] = []
    private var ports: [SwitchPort?] = Array(repeating: nil, count: portLimit)
    private var learning = LearningSwitch(portLimit: portLimit)
    /// The ports that have frames to be written at the end of a turn.
    private var touched: [SwitchPort] = []
    /// Frames that lie one behind the other in the reader's buffer and go to one port.
    private var run: (port: SwitchPort, records: Range<Int>)?
    /// Bytes that wait for all ports' sockets together.
    private var waitingByteCount = 0
    /// Ports with frames from their last read that are not handed on yet, oldest first.
    private var unfinished: [SwitchPort] = []
    /// Readable while there are such ports.
    private let continuation: EventFD

    /// All ports have frames in one format, and hand them on as they are.
    package init(
        _ format: FrameFormat = .plain, loop: EventLoop, clock: any HostClock,
        sharedLimit: Int = 64 << 20
    ) throws(HostError) {
        self.sharedLimit = sharedLimit
        self.format = format
        self.loop = loop
        self.clock = clock
        limiter = LogLimiter(clock: clock)
        continuation = try EventFD()
        try loop.add(continuation.descriptor, [.readable]) { [weak self] in self?.continueOne() }
    }

    /// Makes each connection to the listener a port.
    package func add(_ listener: UnixListener) throws(HostError) {
        listeners.append(listener)
        try listener.serve(on: loop) { [weak self] client in self?.add(client) }
    }

    /// Makes a connected stream a port; one too many is closed.
    package func add(_ socket: FileDescriptor) {
        guard let number = ports.firstIndex(where: { $0 == nil }) else {
            return limiter.warn("more than \(Self.portLimit) connections: one was closed")
        }
        let port = SwitchPort(number: number, socket: socket, format)
        do throws(HostError) {
            try loop.add(socket, [.readable]) { [weak self] in self?.serve(port) }
            ports[number] = port
            limiter.info("port \(number) is connected")
        } catch {
            limiter.warn("a connection was closed: \(error)")
        }
    }

    /// Each connected port with its number.
    package var counters: [(port: Int, counters: PortCounters)] {
        ports.compactMap { $0.map { ($0.number, $0.counters) } }
    }

    /// Lets go of the ports and removes the sockets' files.
    package func finish() {
        loop.remove(continuation.descriptor)
        for case let port? in ports { loop.remove(port.socket) }
        ports = ports.map { _ in nil }
        for listener in listeners {
            loop.remove(listener.descriptor)
            listener.removeFile()
        }
        listeners = []
    }

    // MARK: frames

    /// One read of one port, then the others have their turn.
    private func serve(_ port: SwitchPort) {
        if port.waitsForRoom { flush(port) }
        guard ports[port.number] === port, !port.isUnfinished else { return }
        switch port.reader.fill(from: port.socket) {
        case .moved: break
        case .wouldBlock: return
        case .endOfFile: return remove(port, "its peer is gone")
        case .failed(let code): return remove(port, HostError("receive", code: code).reason)
        }
        passFrames(of: port)
    }

    /// The port that has waited longest goes on.
    private func continueOne() {
        continuation.clear()
        guard !unfinished.isEmpty else { return }
        let port = unfinished.removeFirst()
        if !unfinished.isEmpty { continuation.signal() }
        port.isUnfinished = false
        if ports[port.number] === port { passFrames(of: port) }
    }

    /// Hands on what was read, a turn's worth at most.
    private func passFrames(of port: SwitchPort) {
        let now = clock.monotonicNanoseconds()
        var budget = Self.turnDeliveryCount
        do throws(FramingFault) {
            while budget > 0, let frame = try port.reader.next() {
                budget -= pass(frame, from: port, now)
            }
            if budget <= 0 {
                port.isUnfinished = true
                unfinished.append(port)
                continuation.signal()
            }
        } catch {
            limiter.warn("port \(port.number): the peer sent \(error)")
            remove(port, "it makes no sense")
        }
        sendRun(of: port.reader.bytes)
        for port in touched {
            port.isTouched = false
            // The loop tells when a full socket has room.
            if !port.waitsForRoom { flush(port) }
        }
        touched.removeAll(keepingCapacity: true)
    }

    /// Hands one frame on; what that costs of a turn.
    private func pass(_ frame: Range<Int>, from port: SwitchPort, _ now: UInt64) -> Int {
        port.counters.receivedFrames &+= 1
        port.counters.receivedBytes &+= UInt64(frame.count - format.headerByteCount)
        let bytes = port.reader.bytes
        let start = frame.lowerBound + format.headerByteCount
        let decision = learning.decide(
            destination: LearningSwitch.address(bytes, at: start),
            source: LearningSwitch.address(bytes, at: start + 6), from: port.number, now: now)
        let record = frame.lowerBound - FrameLength.prefix..<frame.upperBound
        switch decision {
        case .drop: return 1
        case .forward(let number):
            if let other = ports[number] { send(record, of: bytes, to: other) }
            return 1
        case .flood:
            var count = 1
            for case let other? in ports where other !== port {
                send(record, of: bytes, to: other)
                count += 1
            }
            return count
        }
    }

    /// Joins the run, or begins another one.
    private func send(_ record: Range<Int>, of bytes: [UInt8], to port: SwitchPort) {
        if let run, run.port === port, run.records.upperBound == record.lowerBound {
            self.run = (port, run.records.lowerBound..<record.upperBound)
            return
        }
        sendRun(of: bytes)
        run = (port, record)
    }

    private func sendRun(of bytes: [UInt8]) {
        guard let (port, records) = run else { return }
        run = nil
        let before = port.waitingByteCount
        port.send(records, of: bytes, limit: limit(port, records.count))
        waitingByteCount += port.waitingByteCount - before
        if !port.isTouched {
            port.isTouched = true
            touched.append(port)
        }
    }

    /// What `port` may have waiting when `count` bytes come.
    private func limit(_ port: SwitchPort, _ count: Int) -> Int {
        if port.waitingByteCount + count <= SwitchPort.share { return SwitchPort.share }
        return waitingByteCount < sharedLimit ? SwitchPort.mostWaiting : SwitchPort.share
    }

    private func flush(_ port: SwitchPort) {
        let waited = port.waitsForRoom
        guard ports[port.number] === port else { return }
        let before = port.waitingByteCount
        let isThere = port.flush()
        waitingByteCount += port.waitingByteCount - before
        guard isThere else { return remove(port, "its peer is gone") }
        if port.waitsForRoom != waited {
            loop.change(
                port.socket, to: port.waitsForRoom ? [.readable, .writable] : [.readable])
        }
    }

    private func remove(_ port: SwitchPort, _ reason: String) {
        guard ports[port.number] === port else { return }
        loop.remove(port.socket)
        ports[port.number] = nil
        waitingByteCount -= port.waitingByteCount
        learning.remove(port: port.number)
        limiter.info("port \(port.number) is gone: \(reason)")
    }
}
