import Synchronization
import VMMBase
import VMMHost

/// A channel over host streams, which may come and go. Output is buffered by the guest's threads
/// and written by the loop, in few large writes; input is read by the loop until it is paused.
final class StreamChannel: Sendable {
    /// What is connected at present.
    struct Connection: Sendable {
        var input: ByteStream?
        var output: ByteStream?
    }

    enum Failure: Sendable {
        /// Losing output is all that can be done (a full disk, a closed pipe).
        case discardsOutput
        /// The connection ends; output waits for the next one.
        case disconnects
    }

    private struct State {
        var ring = OutputRing()
        var loop: EventLoop?
        /// Somebody will drain the ring: a posted call, an event, or the next connection.
        var isDraining = false
        var isPaused = false
        /// As `isDraining`, for input after a pause.
        var isReading = false
    }

    /// What belongs to the loop's thread.
    private struct Traffic {
        var connection = Connection()
        /// Taken from the ring and not written yet, from `sent` on.
        var pending: [UInt8] = []
        var sent = 0
        var hasWarned = false
        var receive: (@Sendable ([UInt8]) -> Void)?
        var disconnected: (() -> Void)?
    }

    /// Bytes per write: large enough to make calls rare.
    private static let outputChunk = 64 << 10
    /// Bytes per read, and so per delivery: typing needs little, and a paste comes in pieces.
    private static let inputChunk = 4096
    /// Reads or writes in a row before others on the loop have their turn.
    private static let turn = 16
    /// A reader that takes the last output in drops delays the process's end by so much: 5 s.
    private static let mostFinishNanoseconds: UInt64 = 5_000_000_000

    private let name: String
    private let failure: Failure
    private let state = Mutex(State())
    private let traffic: LoopBound<Traffic>

    /// `name` is what warnings call the channel.
    init(_ name: String, failure: Failure) {
        self.name = name
        self.failure = failure
        traffic = LoopBound(Traffic())
    }

    // MARK: any thread

    func send(_ byte: UInt8) {
        let loop = state.withLock { state -> EventLoop? in
            state.ring.append(byte)
            return Self.loopToWake(&state)
        }
        loop?.post { [self] in drain() }
    }

    func send(_ bytes: [UInt8]) {
        if bytes.isEmpty { return }
        let loop = state.withLock { state -> EventLoop? in
            state.ring.append(bytes)
            return Self.loopToWake(&state)
        }
        loop?.post { [self] in drain() }
    }

    private static func loopToWake(_ state: inout State) -> EventLoop? {
        if state.isDraining { return nil }
        guard let loop = state.loop else { return nil }
        state.isDraining = true
        return loop
    }

    func setInputPaused(_ paused: Bool) {
        let loop = state.withLock { state -> EventLoop? in
            state.isPaused = paused
            if paused || state.isReading { return nil }
            state.isReading = state.loop != nil
            return state.loop
        }
        loop?.post { [self] in read() }
    }

    // MARK: the loop's thread

    func start(on loop: EventLoop, receive: (@Sendable ([UInt8]) -> Void)?) {
        traffic.withValue { $0.receive = receive }
        state.withLock { $0.loop = loop }
    }

    /// Sets what is called when the connection ended by itself.
    func onDisconnect(_ handler: sending @escaping () -> Void) {
        traffic.withValue { $0.disconnected = handler }
    }

    /// Connects the streams, after the start. What waits is written at once.
    func connect(_ connection: Connection) {
        disconnect()
        guard let loop = state.withLock({ $0.loop }) else { return }
        traffic.withValue { $0.connection = connection }
        let (input, output) = (connection.input, connection.output)
        if let input, input === output {
            watch(input, [.readable, .writable, .edgeTriggered], on: loop) { [self] in
                drain()
                read()
            }
        } else {
            if let input {
                watch(input, [.readable, .edgeTriggered], on: loop) { [self] in read() }
            }
            if let output {
                watch(output, [.writable, .edgeTriggered], on: loop) { [self] in drain() }
            }
        }
        // Files have no events, so the first turn is always ours.
        state.withLock { state in
            state.isDraining = true
            state.isReading = true
        }
        loop.post { [self] in
            drain()
            read()
        }
    }

    private func watch(
        _ stream: ByteStream, _ interest: EventLoop.Interest, on loop: EventLoop,
        handler: @escaping () -> Void
    ) {
        do throws(HostError) {
            try loop.add(stream.descriptor, interest, handler: handler)
        } catch {
            // EPERM: a file that never waits needs no events (epoll_ctl(2)).
            Log.debug("\(name): no events: \(error)")
        }
    }

    /// Lets go of the streams; output waits for the next ones.
    func disconnect() {
        let old = traffic.withValue { traffic in
            defer { traffic.connection = Connection() }
            return traffic.connection
        }
        guard let loop = state.withLock({ $0.loop }) else { return }
        for stream in [old.input, old.output] {
            if let stream { loop.remove(stream.descriptor) }
        }
    }

    /// Writes until nothing is left or the stream would wait; then its event calls again.
    private func drain() {
        guard let output = traffic.withValue({ $0.connection.output }) else { return }
        for _ in 0..<Self.turn {
            guard let isLost = writeSome(to: output) else { return }
            if isLost { return }
        }
        state.withLock { $0.loop }?.post { [self] in drain() }
    }

    /// One write. Nil when there is nothing to do until the next event or output; true when the
    /// connection is lost.
    private func writeSome(to output: ByteStream) -> Bool? {
        guard refill() else { return nil }
        let result = traffic.withValue { output.write($0.pending, from: $0.sent) }
        switch result {
        case .moved(let count):
            traffic.withValue { $0.sent += count }
            return false
        case .wouldBlock:
            return nil
        case .endOfFile, .failed:
            return fail(result)
        }
    }

    /// True when bytes are pending; otherwise nobody drains any more, until the next output.
    private func refill() -> Bool {
        if traffic.withValue({ $0.sent < $0.pending.count }) { return true }
        let chunk = state.withLock { state -> [UInt8] in
            state.isDraining = !state.ring.isEmpty
            return state.ring.take(Self.outputChunk)
        }
        traffic.withValue { traffic in
            traffic.pending = chunk
            traffic.sent = 0
        }
        return !chunk.isEmpty
    }

    private func fail(_ result: FileDescriptor.Transfer) -> Bool {
        switch failure {
        case .disconnects:
            endConnection()
            return true
        case .discardsOutput:
            let isFirst = traffic.withValue { traffic in
                defer { traffic.hasWarned = true }
                traffic.sent = traffic.pending.count
                return !traffic.hasWarned
            }
            if isFirst { Log.warning("\(name): output is lost: \(result)") }
            return false
        }
    }

    /// Reads until nothing is left, or the receiver pauses.
    private func read() {
        let (stream, receive) = traffic.withValue { ($0.connection.input, $0.receive) }
        guard let stream, let receive else { return }
        var bytes: [UInt8] = []
        for _ in 0..<Self.turn {
            guard mayRead() else { return }
            bytes.removeAll(keepingCapacity: true)
            switch stream.read(into: &bytes, limit: Self.inputChunk) {
            case .moved:
                receive(bytes)
            case .wouldBlock:
                return state.withLock { $0.isReading = false }
            case .endOfFile, .failed:
                state.withLock { $0.isReading = false }
                return endInput(stream)
            }
        }
        state.withLock { $0.loop }?.post { [self] in read() }
    }

    private func mayRead() -> Bool {
        state.withLock { state in
            state.isReading = !state.isPaused
            return state.isReading
        }
    }

    private func endInput(_ stream: ByteStream) {
        if failure == .disconnects { return endConnection() }
        let (loop, isShared) = (
            state.withLock { $0.loop },
            traffic.withValue { traffic in
                traffic.connection.input = nil
                return traffic.connection.output === stream
            }
        )
        if !isShared { loop?.remove(stream.descriptor) }
    }

    private func endConnection() {
        disconnect()
        traffic.withValue { $0.disconnected }?()
    }

    // MARK: the end

    /// Writes what can be written, waiting for a slow reader as long as it makes progress every
    /// `patience` milliseconds, a few seconds in all, and lets go of everything. After the loop has
    /// ended.
    func finish(patience: Int32, clock: any HostClock = SystemClock()) {
        if let output = traffic.withValue({ $0.connection.output }) {
            writeAll(to: output, patience: patience, clock)
        }
        disconnect()
        traffic.withValue { traffic in
            traffic.receive = nil
            traffic.disconnected = nil
        }
        state.withLock { $0.loop = nil }
    }

    private func writeAll(to output: ByteStream, patience: Int32, _ clock: any HostClock) {
        let start = clock.monotonicNanoseconds()
        var isStalled = false
        while refill(), clock.monotonicNanoseconds() &- start < Self.mostFinishNanoseconds {
            switch writeSome(to: output) {
            case true: return
            case false: isStalled = false
            case nil:
                // A stream that calls itself ready and takes nothing would keep us here for ever.
                if isStalled { return }
                isStalled = true
                if !output.descriptor.isReady(.writable, waitingMilliseconds: patience) { return }
            }
        }
    }
}
