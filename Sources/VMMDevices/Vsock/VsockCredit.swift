/// How many bytes each side of a connection may send (VirtIO 1.3, 5.10.6.3). Counts are modulo
/// 2^32, and the guest's numbers are believed only as far as they cannot harm.
struct VsockCredit: Equatable {
    /// Our buffer for what the guest sends, in bytes.
    let window: UInt32

    /// Bytes that came from the guest, and those of them that went on to the host.
    private(set) var received: UInt32 = 0
    private(set) var forwarded: UInt32 = 0
    /// `forwarded` as the guest knows it.
    private var told: UInt32 = 0

    /// Bytes that went to the guest.
    private(set) var sent: UInt32 = 0
    private var guestWindow: UInt32 = 0
    private var guestForwarded: UInt32 = 0

    init(window: UInt32) {
        self.window = window
    }

    // MARK: guest to host

    /// Takes note of bytes from the guest; false, with nothing noted, when they are more than the
    /// buffer holds.
    mutating func receive(_ count: UInt32) -> Bool {
        let waiting = received &- forwarded
        guard waiting <= window, count <= window - waiting else { return false }
        received &+= count
        return true
    }

    /// Bytes left the buffer, of those that were received.
    mutating func forward(_ count: Int) {
        forwarded &+= UInt32(truncatingIfNeeded: count)
    }

    /// Whether the guest should hear of the room that it has. At half a buffer: the guest never
    /// stands still while that much is free, and packets for the purpose are few.
    var shouldTell: Bool { forwarded &- told >= max(1, window / 2) }

    /// Any packet tells the guest; this one is about to.
    mutating func tell() -> UInt32 {
        told = forwarded
        return forwarded
    }

    // MARK: host to guest

    /// How many bytes the guest has room for.
    var room: UInt32 {
        let inFlight = sent &- guestForwarded
        return inFlight < guestWindow ? guestWindow - inFlight : 0
    }

    mutating func send(_ count: Int) {
        sent &+= UInt32(truncatingIfNeeded: count)
    }

    /// What a packet of the guest says of its buffer; true when that is news.
    mutating func learn(window: UInt32, forwarded: UInt32) -> Bool {
        let isNew = window != guestWindow || forwarded != guestForwarded
        guestWindow = window
        guestForwarded = forwarded
        return isNew
    }
}
