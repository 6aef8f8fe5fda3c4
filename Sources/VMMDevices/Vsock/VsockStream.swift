/// One connection as the protocol has it: which packets may come, and which are to be sent. No
/// socket, clock or queue.
struct VsockStream {
    enum Phase {
        /// A client of the host has not said yet whom it wants.
        case greeting
        /// The guest was asked, and has not answered.
        case requested
        /// The guest asks, and the host's socket has not answered.
        case connecting
        case established
        /// Both ways are shut from our side; the guest's confirmation is awaited.
        case closing
        /// A reset is on its way to the guest, and what it still sends is of no interest.
        case resetting
        /// The guest knows nothing of the connection, or no more.
        case detached
    }

    /// Packets that wait for room in the guest, at most one of each.
    struct Pending: OptionSet {
        let rawValue: UInt8

        static let reset = Pending(rawValue: 1)
        static let request = Pending(rawValue: 2)
        static let response = Pending(rawValue: 4)
        static let creditUpdate = Pending(rawValue: 8)
        static let creditRequest = Pending(rawValue: 16)
        static let shutdown = Pending(rawValue: 32)
    }

    /// What a packet of the guest asks of the device.
    enum Verdict: Equatable {
        /// Nothing; though there may be credit now, or an answer pending.
        case nothing
        /// The guest accepted the host's connection.
        case open
        /// The payload goes to the host.
        case deliver
        /// `guestShutdown` has changed.
        case shutDown
        /// The guest has no part in the connection any more.
        case ended
        /// The guest broke the rules.
        case violation
    }

    let key: VsockKey
    private(set) var phase: Phase
    private(set) var pending: Pending = []
    var credit: VsockCredit
    /// What the guest will not do any more.
    private(set) var guestShutdown: VsockShutdown = []
    /// What the guest was told, or is about to be, that the host will not do any more.
    private(set) var hostShutdown: VsockShutdown = []
    private(set) var hasAskedForCredit = false

    private init(_ key: VsockKey, _ phase: Phase, _ credit: VsockCredit) {
        self.key = key
        self.phase = phase
        self.credit = credit
    }

    /// A client of the host that has not spoken yet.
    static func greeting() -> VsockStream {
        VsockStream(
            VsockKey(hostPort: 0, guestPort: 0), .greeting, VsockCredit(window: 0))
    }

    /// A connection that the host asks for.
    static func toGuest(_ key: VsockKey, window: UInt32) -> VsockStream {
        var stream = VsockStream(key, .requested, VsockCredit(window: window))
        stream.pending = .request
        return stream
    }

    /// A connection that the guest asked for by the packet `request`.
    static func toHost(_ request: VsockHeader, window: UInt32) -> VsockStream {
        var stream = VsockStream(
            request.guestKey, .connecting, VsockCredit(window: window))
        _ = stream.credit.learn(window: request.window, forwarded: request.forwarded)
        return stream
    }

    // MARK: what the guest sends

    /// Takes note of a packet of this connection.
    mutating func receive(_ header: VsockHeader) -> Verdict {
        if credit.learn(window: header.window, forwarded: header.forwarded) {
            hasAskedForCredit = false
        }
        typealias Operation = VsockHeader.Operation
        switch (header.operation, phase) {
        case (Operation.reset, _): return .ended
        case (_, .resetting), (Operation.creditUpdate, .established): return .nothing
        case (Operation.response, .requested):
            phase = .established
            return .open
        case (Operation.data, .established):
            let isAllowed = !guestShutdown.contains(.sending) && credit.receive(header.length)
            return isAllowed ? .deliver : .violation
        case (Operation.creditRequest, .established):
            pending.insert(.creditUpdate)
            return .nothing
        case (Operation.shutdown, .established), (Operation.shutdown, .closing):
            guestShutdown.formUnion(VsockShutdown(rawValue: header.flags).intersection(.both))
            return .shutDown
        // It was sent before the guest learned that nobody takes it.
        case (_, .closing): return .nothing
        default: return .violation
        }
    }

    // MARK: what the host does

    /// The host's socket took the guest's connection.
    mutating func accept() {
        phase = .established
        pending.insert(.response)
    }

    /// The host will not send any more, or takes no more; the guest is told once.
    mutating func shutDown(_ directions: VsockShutdown) {
        guard phase == .established, !directions.isSubset(of: hostShutdown) else { return }
        hostShutdown.formUnion(directions)
        pending.insert(.shutdown)
    }

    /// Ends the connection: nothing but a reset goes to the guest.
    mutating func reset() {
        phase = .resetting
        pending = .reset
    }

    /// The guest is out of it.
    mutating func detach() {
        phase = .detached
        pending = []
    }

    /// Bytes went on to the host.
    mutating func forward(_ count: Int) {
        credit.forward(count)
        if phase == .established, credit.shouldTell { pending.insert(.creditUpdate) }
    }

    // MARK: what is sent to the guest

    /// Whether the host's bytes are of use, if the guest has room for them.
    var takesData: Bool {
        phase == .established && !guestShutdown.contains(.receiving)
            && !hostShutdown.contains(.sending)
    }

    /// The host has bytes and the guest has no room: asks once, until it says something new.
    mutating func askForCredit() {
        guard !hasAskedForCredit else { return }
        hasAskedForCredit = true
        pending.insert(.creditRequest)
    }

    /// The next packet without payload, or nil when none waits. The reply to a request comes
    /// before all else, and what says that the host sends no more is inserted when all is sent.
    mutating func nextPacket(to guest: UInt64) -> VsockHeader? {
        typealias Operation = VsockHeader.Operation
        if pending.remove(.reset) != nil {
            phase = .detached
            return header(Operation.reset, to: guest)
        }
        if pending.remove(.request) != nil { return header(Operation.request, to: guest) }
        if pending.remove(.response) != nil { return header(Operation.response, to: guest) }
        if pending.remove(.creditUpdate) != nil {
            return header(Operation.creditUpdate, to: guest)
        }
        if pending.remove(.creditRequest) != nil {
            return header(Operation.creditRequest, to: guest)
        }
        guard pending.remove(.shutdown) != nil else { return nil }
        if hostShutdown == .both { phase = .closing }
        var header = header(Operation.shutdown, to: guest)
        header.flags = hostShutdown.rawValue
        return header
    }

    /// The header of a packet with `count` bytes of payload.
    mutating func dataPacket(_ count: Int, to guest: UInt64) -> VsockHeader {
        credit.send(count)
        var header = self.header(VsockHeader.Operation.data, to: guest)
        header.length = UInt32(truncatingIfNeeded: count)
        return header
    }

    private mutating func header(_ operation: UInt16, to guest: UInt64) -> VsockHeader {
        // It tells the guest of its room as well.
        pending.remove(.creditUpdate)
        return VsockHeader(
            sourceCID: VsockHeader.hostCID, destinationCID: guest, sourcePort: key.hostPort,
            destinationPort: key.guestPort, operation: operation, window: credit.window,
            forwarded: credit.tell())
    }
}
