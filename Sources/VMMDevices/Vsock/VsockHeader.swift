/// The header of a packet, as it lies before the payload (VirtIO 1.3, 5.10.6).
struct VsockHeader: Equatable {
    static let byteCount = 44
    /// The host's address; the guest's is in the device's configuration.
    static let hostCID: UInt64 = 2
    /// The only type of socket here.
    static let stream: UInt16 = 1

    enum Operation {
        static let request: UInt16 = 1
        static let response: UInt16 = 2
        static let reset: UInt16 = 3
        static let shutdown: UInt16 = 4
        static let data: UInt16 = 5
        static let creditUpdate: UInt16 = 6
        static let creditRequest: UInt16 = 7
    }

    var sourceCID: UInt64 = 0
    var destinationCID: UInt64 = 0
    var sourcePort: UInt32 = 0
    var destinationPort: UInt32 = 0
    /// Bytes of payload behind the header.
    var length: UInt32 = 0
    var type = VsockHeader.stream
    var operation: UInt16 = 0
    var flags: UInt32 = 0
    /// The sender's buffer for this connection, in bytes.
    var window: UInt32 = 0
    /// How many bytes in all have left that buffer, modulo 2^32.
    var forwarded: UInt32 = 0
}

// On the wire.
extension VsockHeader {
    /// Nil when there are fewer than `byteCount` bytes.
    init?(_ bytes: [UInt8]) {
        guard bytes.count >= Self.byteCount else { return nil }
        func load<Value: FixedWidthInteger & UnsignedInteger>(_ offset: Int) -> Value {
            var value: Value = 0
            for index in 0..<(Value.bitWidth / 8) {
                value |= Value(bytes[offset &+ index]) &<< Value(8 &* index)
            }
            return value
        }
        sourceCID = load(0)
        destinationCID = load(8)
        sourcePort = load(16)
        destinationPort = load(20)
        length = load(24)
        type = load(28)
        operation = load(30)
        flags = load(32)
        window = load(36)
        forwarded = load(40)
    }

    /// Writes the header over the first bytes of `bytes`, of which there are `byteCount`.
    func encode(into bytes: inout [UInt8]) {
        func store<Value: FixedWidthInteger & UnsignedInteger>(_ value: Value, _ offset: Int) {
            for index in 0..<(Value.bitWidth / 8) {
                bytes[offset &+ index] = UInt8(truncatingIfNeeded: value &>> Value(8 &* index))
            }
        }
        store(sourceCID, 0)
        store(destinationCID, 8)
        store(sourcePort, 16)
        store(destinationPort, 20)
        store(length, 24)
        store(type, 28)
        store(operation, 30)
        store(flags, 32)
        store(window, 36)
        store(forwarded, 40)
    }

    /// The refusal of a packet that belongs to no connection.
    var refusal: VsockHeader {
        VsockHeader(
            sourceCID: destinationCID, destinationCID: sourceCID, sourcePort: destinationPort,
            destinationPort: sourcePort, type: type, operation: Operation.reset)
    }

    /// The connection that a packet of the guest belongs to.
    var guestKey: VsockKey { VsockKey(hostPort: destinationPort, guestPort: sourcePort) }
}

/// What names a connection: both ports, for the addresses are always the same.
struct VsockKey: Hashable {
    let hostPort: UInt32
    let guestPort: UInt32
}

/// What a side will not do any more (VirtIO 1.3, 5.10.6.6).
struct VsockShutdown: OptionSet {
    let rawValue: UInt32

    static let receiving = VsockShutdown(rawValue: 1)
    static let sending = VsockShutdown(rawValue: 2)
    static let both: VsockShutdown = [receiving, sending]
}
