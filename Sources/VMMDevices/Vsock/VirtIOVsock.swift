import VMMBase
import VMMHost
import VMMVirtIO

/// virtio-vsock (VirtIO 1.3, 5.10) over Unix sockets of the host: a client connects to the
/// device's socket and names a port of the guest; the guest connects to a port of the host and
/// reaches the socket whose name ends with that port. Bytes go between guest memory and the
/// sockets without a copy of ours, unless a socket does not take them at once.
package final class VirtIOVsock: VirtIODevice {
    private enum FeatureBit {
        static let stream: UInt64 = 1 << 0
        /// Buffers of each queue come back in the order in which they were offered.
        static let inOrder: UInt64 = 1 << 35
    }

    enum Queue {
        static let receive = 0
        static let transmit = 1
        static let event = 2
    }

    private static let queueSize: UInt16 = 256
    /// Slots, tokens and timeouts cost some 300 bytes each; sockets of the host far more.
    package static let mostConnections = 32768
    /// Buffers of the guest that one read from a socket fills: 64 KiB of 4 KiB buffers.
    private static let gathered = 17
    /// Numbers that are not those of connections, in the set of sockets.
    private enum Token {
        static let listener = UInt64.max
        static let timer = UInt64.max - 1
    }

    package let id: String
    package let deviceType = VirtIODeviceType.vsock
    package let queueSizes = [queueSize, queueSize, queueSize]
    /// The driver's work on both directions is one thread's, and an answer comes with the word that
    /// its question was taken.
    package let queueInterruptCount = 1
    package let offeredFeatures = FeatureBit.stream | FeatureBit.inOrder
    package var configurationChanged: (() -> Void)?

    /// A connection to this port of the host says that the guest is up, whoever listens there.
    package static let readyPort: UInt32 = 0x5357
    /// Called on the device's loop, once for each time that a driver takes the device.
    package var guestIsReady: (() -> Void)?
    var hasToldReady = false

    let guest: UInt64
    let listener: UnixListener
    let clock: any HostClock
    let limiter: LogLimiter
    let counters = VsockCounters()

    // Sockets and time.
    let set: ReadinessSet
    private let timer: Timer
    /// When the timer runs out; nil while it does not run.
    private var timerEnd: UInt64?
    var deadlines = VsockDeadlines()
    /// The timer has run out.
    private var hasEndedWait = false
    var hasMoreEvents = false
    var mayAccept = true

    // Connections.
    var table: VsockTable
    var pool = ByteBacklog.Pool()
    /// Those that want a turn of the receive queue, in the order of their coming.
    var ready = SlotList()
    var nextHostPort = VirtIOVsock.firstHostPort

    // Queues.
    var receive: VirtQueue?
    var transmit: VirtQueue?
    var transmitChain: DescriptorChain?
    private var event: VirtQueue?
    private var eventChain: DescriptorChain?
    private var hasEventBuffer = false
    private var mustTellReset = false
    /// Buffers of the guest that wait to be filled.
    var waiting = WaitingBuffers()
    /// Several of them as one list, for one read.
    var room: GuestVector?
    /// Answers to packets that belong to no connection. While it is full, packets of the guest
    /// wait: a queue's worth of them can always be answered (5.10.6.1.2).
    var refusals = HeaderQueue(capacity: Int(queueSize))
    var isTransmitHeld = false
    /// A header on its way in or out.
    var headerBytes: [UInt8] = []

    /// Serves clients of `listener` from the first activation on. `limit` connections at most.
    package init(
        id: String, guest: UInt64, listener: UnixListener, clock: any HostClock, limit: Int
    ) throws(HostError) {
        self.id = id
        self.guest = guest
        self.listener = listener
        self.clock = clock
        limiter = LogLimiter(clock: clock)
        table = VsockTable(limit: limit)
        set = try ReadinessSet()
        timer = try Timer()
        try set.add(listener.descriptor, token: Token.listener)
        try set.add(timer.descriptor, token: Token.timer)
    }

    package var statistics: VsockStatistics { counters.statistics }

    package var configuration: [UInt8] {
        var builder = ByteBuilder()
        builder.append(guest)
        return builder.bytes
    }

    // MARK: life

    package func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        for (index, queue) in queues.enumerated() {
            if let queue { try activate(queue, at: index) }
        }
        // Clients that came while there was no driver, and whose event was taken before.
        mayAccept = true
    }

    package func activate(_ queue: VirtQueue, at index: Int) throws {
        switch index {
        case Queue.receive:
            waiting = WaitingBuffers(of: queue, limit: Self.gathered)
            // What one readv takes (IOV_MAX).
            room = try GuestVectorArena(vectors: 1, capacity: 1024).makeVector()
            receive = queue
            // Without this queue packets of the guest had to wait.
            isTransmitHeld = true
            queue.serviceAgain()
        case Queue.transmit:
            transmitChain = try queue.makeChains(1).first
            transmit = queue
        default:
            eventChain = try queue.makeChains(1).first
            event = queue
        }
    }

    package func quiesce(queue index: Int) {
        switch index {
        case Queue.receive:
            receive = nil
            waiting = WaitingBuffers()
            room = nil
        case Queue.transmit:
            transmit = nil
            transmitChain = nil
        default:
            event = nil
            eventChain = nil
            hasEventBuffer = false
        }
    }

    package func quiesce() {
        for index in queueSizes.indices { quiesce(queue: index) }
        mustTellReset = false
        hasToldReady = false
        // All sockets close: the other ends see it.
        table = VsockTable(limit: table.limit)
        ready = SlotList()
        deadlines = VsockDeadlines()
        refusals = HeaderQueue(capacity: Int(Self.queueSize))
        isTransmitHeld = false
        hasMoreEvents = false
        hasEndedWait = false
        timer.clear()
        timerEnd = nil
    }

    package func finish() {
        listener.removeFile()
    }

    // MARK: turns

    package var wakeSources: [FileDescriptor] { [set.descriptor] }

    package func wake(source index: Int) throws(GuestFault) {
        hasMoreEvents = true
        try takeTurn(transmits: false)
    }

    package func service(queue index: Int) throws(GuestFault) {
        if index == Queue.event { return try serviceEvents() }
        try takeTurn(transmits: index == Queue.transmit)
    }

    /// A bounded piece of all that there is to do; if more is left, asks for another turn.
    private func takeTurn(transmits: Bool) throws(GuestFault) {
        guard let receive else { return }
        if hasMoreEvents { takeEvents() }
        if mayAccept { acceptClients() }
        // What the guest said before the end of a wait counts, however late we are.
        if transmits || isTransmitHeld || hasEndedWait { try takePackets() }
        if hasEndedWait { endWaits() }
        try deliver()
        setTimer()
        if isTransmitHeld, !refusals.isFull { transmit?.serviceAgain() }
        if hasMoreEvents || (mayAccept && canAccept) { receive.serviceAgain() }
    }

    private func takeEvents() {
        let count = set.collect()
        hasMoreEvents = count == ReadinessSet.batch
        for index in 0..<count {
            let event = set[index]
            switch event.token {
            case Token.listener: mayAccept = true
            case Token.timer: hasEndedWait = true
            default:
                if let connection = table[token: event.token] { handle(event, connection) }
            }
        }
    }

    /// At most as many ends as events; the timer runs out again for the rest.
    func endWaits() {
        hasEndedWait = false
        timer.clear()
        timerEnd = nil
        let now = clock.monotonicNanoseconds()
        for _ in 0..<ReadinessSet.batch {
            guard let (wait, slot) = deadlines.takeEnded(now: now) else { return }
            if let connection = table[slot: slot] { endWait(wait, connection) }
        }
    }

    private func setTimer() {
        guard let next = deadlines.next, next < timerEnd ?? .max else { return }
        let now = clock.monotonicNanoseconds()
        timerEnd = next
        timer.set(nanoseconds: next > now ? next - now : 1)
    }

    // MARK: events

    /// Tells the driver that all its connections are gone though it was not reset (5.10.6.7): for
    /// a guest that wakes up somewhere else. Told as soon as there is a buffer.
    package func resetTransport() throws(GuestFault) {
        mustTellReset = true
        try serviceEvents()
    }

    /// Holds one buffer ready, so that the driver's are known to be sound.
    private func serviceEvents() throws(GuestFault) {
        guard let event, let chain = eventChain else { return }
        if !hasEventBuffer { hasEventBuffer = try event.pop(into: chain) }
        guard mustTellReset, hasEventBuffer else { return }
        // The event's number is four bytes, and 0 is the only one there is.
        guard chain.writable.byteCount >= 4 else {
            throw GuestFault("event buffer too small", chain.writable.byteCount)
        }
        chain.writable.fillZeros(4)
        event.push(chain, written: 4)
        hasEventBuffer = false
        mustTellReset = false
        event.notify()
    }
}
