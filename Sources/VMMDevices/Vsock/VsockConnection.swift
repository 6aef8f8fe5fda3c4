import VMMHost

/// One connection: the protocol's side of it, the host's socket, and what is on its way from the
/// one to the other.
final class VsockConnection {
    let slot: Int
    /// Names the connection in the set of sockets. Slots are used again, tokens are not.
    let token: UInt64
    var stream: VsockStream
    /// Nil before the host's side is connected, and after it was closed.
    var socket: FileDescriptor?
    /// From the guest, not taken by the socket yet.
    var backlog = ByteBacklog()
    /// The socket may have bytes or its end to read.
    var isReadable = false
    /// The host's side has left: nothing can be sent to it.
    var isHungUp = false
    /// The set tells when the socket takes bytes again.
    var awaitsRoom = false
    /// The socket was told that the guest sends no more.
    var isSendingShut = false
    /// How often a busy listener was tried.
    var attempts = 0

    init(slot: Int, token: UInt64, stream: VsockStream) {
        self.slot = slot
        self.token = token
        self.stream = stream
    }

    /// Whether there is something to read for the guest, which has room for it.
    var canDeliver: Bool {
        isReadable && socket != nil && stream.takesData && stream.credit.room > 0
    }

    /// Whether there is something to read for the guest, which has no room for it.
    var isBlocked: Bool { isReadable && stream.takesData && stream.credit.room == 0 }

    /// Whether it wants a turn of the receive queue.
    var wantsTurn: Bool { !stream.pending.isEmpty || canDeliver }
}

/// All connections, by slot and by ports. Never more than its limit.
struct VsockTable {
    /// What all buffers together may promise to guests before connections get small ones: 256
    /// connections have a large one.
    private static let largeTotal = 64 << 20
    /// What a stream of 64 KiB packets needs to flow without waiting for credit.
    static let largeWindow: UInt32 = 256 << 10
    /// With it, 32,768 connections whose readers all stand still take 256 MiB.
    static let smallWindow: UInt32 = 8 << 10

    let limit: Int
    private var slots: [VsockConnection?] = []
    private var freeSlots: [Int] = []
    private var keys: [VsockKey: VsockConnection] = [:]
    private var nextToken: UInt64 = 0
    private var promised = 0
    /// Clients of the host that have not spoken.
    private(set) var greetingCount = 0

    init(limit: Int) {
        self.limit = limit
    }

    var count: Int { slots.count - freeSlots.count }
    var isFull: Bool { count >= limit }

    /// The buffer for the next connection, in bytes.
    var window: UInt32 {
        promised + Int(Self.largeWindow) <= Self.largeTotal ? Self.largeWindow : Self.smallWindow
    }

    subscript(key: VsockKey) -> VsockConnection? { keys[key] }
    subscript(slot slot: Int) -> VsockConnection? {
        slots.indices.contains(slot) ? slots[slot] : nil
    }
    /// The connection with this token, unless it has gone.
    subscript(token token: UInt64) -> VsockConnection? {
        guard let connection = self[slot: Int(token & 0xffff_ffff)],
            connection.token == token
        else { return nil }
        return connection
    }

    /// Adds a connection; there is room for it. One with ports takes them.
    mutating func insert(_ stream: VsockStream) -> VsockConnection {
        let slot = freeSlots.popLast() ?? slots.count
        if slot == slots.count { slots.append(nil) }
        // The slot in the lower half, so that it is found; the upper half never comes again.
        nextToken = (nextToken &+ 1) & 0x7fff_ffff
        let token = nextToken << 32 | UInt64(slot)
        let connection = VsockConnection(slot: slot, token: token, stream: stream)
        slots[slot] = connection
        enter(connection)
        return connection
    }

    /// A client has said whom it wants: it gets its ports.
    mutating func begin(_ connection: VsockConnection, _ stream: VsockStream) {
        leave(connection)
        connection.stream = stream
        enter(connection)
    }

    /// The guest has no part in the connection any more: its ports are free.
    mutating func detach(_ connection: VsockConnection) {
        if keys[connection.stream.key] === connection {
            keys.removeValue(forKey: connection.stream.key)
        }
    }

    /// Removes a connection for good.
    mutating func remove(_ connection: VsockConnection) {
        guard slots[connection.slot] === connection else { return }
        detach(connection)
        leave(connection)
        slots[connection.slot] = nil
        freeSlots.append(connection.slot)
    }

    private mutating func enter(_ connection: VsockConnection) {
        promised += Int(connection.stream.credit.window)
        if connection.stream.phase == .greeting {
            greetingCount += 1
        } else {
            keys[connection.stream.key] = connection
        }
    }

    private mutating func leave(_ connection: VsockConnection) {
        promised -= Int(connection.stream.credit.window)
        // Only a client that never spoke has no buffer.
        if connection.stream.credit.window == 0 { greetingCount -= 1 }
    }
}
