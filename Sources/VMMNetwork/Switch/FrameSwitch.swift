import VMMBase
import VMMHost

/// A switch whose ports are connections to Unix sockets, with frames behind their lengths. It
/// sleeps while no frame comes. Belongs to its loop's thread.
package final class FrameSwitch {
    /// Ports at a time: each takes up to 640 KiB, and shares `sharedLimit` with the others.
    package static let portLimit = 256
    /// In bytes: while all ports together have less waiting, one may have more than its share.
    private let sharedLimit: Int

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

    /// All ports have frames in one format, and hand them on as they are.
    package init(
        _ format: FrameFormat = .plain, loop: EventLoop, clock: any HostClock,
        sharedLimit: Int = 64 << 20
    ) {
        self.sharedLimit = sharedLimit
        self.format = format
        self.loop = loop
        self.clock = clock
        limiter = LogLimiter(clock: clock)
    }

    /// Makes each connection to the listener a port.
    package func add(_ listener: UnixListener) throws(HostError) {
        listeners.append(listener)
        try loop.add(listener.descriptor, [.readable]) { [weak self] in
            guard let client = listener.accept() else { return }
            self?.add(client)
        }
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
            Log.info("port \(number) is connected")
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
        guard ports[port.number] === port else { return }
        switch port.reader.fill(from: port.socket) {
        case .moved: break
        case .wouldBlock: return
        case .endOfFile: return remove(port, "its peer is gone")
        case .failed(let code): return remove(port, HostError("receive", code: code).reason)
        }
        let now = clock.monotonicNanoseconds()
        do throws(FramingFault) {
            while let frame = try port.reader.next() { pass(frame, from: port, now) }
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

    private func pass(_ frame: Range<Int>, from port: SwitchPort, _ now: UInt64) {
        port.counters.receivedFrames &+= 1
        port.counters.receivedBytes &+= UInt64(frame.count - format.headerByteCount)
        let bytes = port.reader.bytes
        let start = frame.lowerBound + format.headerByteCount
        let decision = learning.decide(
            destination: LearningSwitch.address(bytes, at: start),
            source: LearningSwitch.address(bytes, at: start + 6), from: port.number, now: now)
        let record = frame.lowerBound - FrameLength.prefix..<frame.upperBound
        switch decision {
        case .drop: break
        case .forward(let number):
            if let other = ports[number] { send(record, of: bytes, to: other) }
        case .flood:
            for case let other? in ports where other !== port {
                send(record, of: bytes, to: other)
            }
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
        port.send(records, of: bytes, limit: limit(port, records.count))
        if !port.isTouched {
            port.isTouched = true
            touched.append(port)
        }
    }

    /// What `port` may have waiting when `count` bytes come.
    private func limit(_ port: SwitchPort, _ count: Int) -> Int {
        if port.waitingByteCount + count <= SwitchPort.share { return SwitchPort.share }
        let waiting = ports.reduce(0) { $0 + ($1?.waitingByteCount ?? 0) }
        return waiting < sharedLimit ? SwitchPort.mostWaiting : SwitchPort.share
    }

    private func flush(_ port: SwitchPort) {
        let waited = port.waitsForRoom
        guard ports[port.number] === port else { return }
        guard port.flush() else { return remove(port, "its peer is gone") }
        if port.waitsForRoom != waited {
            loop.change(
                port.socket, to: port.waitsForRoom ? [.readable, .writable] : [.readable])
        }
    }

    private func remove(_ port: SwitchPort, _ reason: String) {
        guard ports[port.number] === port else { return }
        loop.remove(port.socket)
        ports[port.number] = nil
        learning.remove(port: port.number)
        Log.info("port \(port.number) is gone: \(reason)")
    }
}
