import VMMHost

/// Ethernet frames on their way into a stream, each behind its length. Many go with one call, and
/// what the socket does not take waits here up to a bound, so that a frame once begun is finished.
package struct FrameQueue {
    /// An empty queue keeps that much memory; what a slow peer made it take beyond is given back.
    private static let keptByteCount = 512 << 10

    private var bytes: [UInt8] = []
    private var sent = 0
    /// The most bytes that wait, lengths included.
    package var limit: Int

    /// `limit` in bytes, lengths included.
    package init(limit: Int) {
        self.limit = limit
    }

    package var isEmpty: Bool { sent == bytes.count }
    /// How many bytes wait, lengths included.
    package var byteCount: Int { bytes.count - sent }

    package mutating func removeAll() {
        bytes.removeAll(keepingCapacity: bytes.capacity <= Self.keptByteCount)
        sent = 0
    }

    /// Whether a frame of `count` bytes fits now.
    package func hasRoom(for count: Int) -> Bool {
        byteCount + FrameLength.prefix + count <= limit
    }

    /// Adds a frame from guest memory; false when it does not fit now. The guest may write to the
    /// frame meanwhile, but its length is what it was.
    package mutating func append(_ frame: GuestVector) -> Bool {
        guard makeRoom(for: Int(frame.byteCount)) else { return false }
        appendLength(Int(frame.byteCount))
        frame.copyOut(into: &bytes)
        return true
    }

    /// Adds the rest of a frame that the socket took `done` bytes of, its length counted; nothing
    /// else waits, so there is room.
    package mutating func append(restOf frame: GuestVector, after done: Int) {
        removeAll()
        appendLength(Int(frame.byteCount))
        sent = min(done, FrameLength.prefix)
        frame.removeFirst(done - sent)
        frame.copyOut(into: &bytes)
    }

    /// Adds a frame that has its length in front, or the rest of one; false when it does not fit
    /// now.
    package mutating func append(record: ArraySlice<UInt8>) -> Bool {
        guard makeRoom(for: record.count - FrameLength.prefix) else { return false }
        bytes.append(contentsOf: record)
        return true
    }

    /// Writes as much as the socket takes; `.wouldBlock` when some is left.
    package mutating func flush(to socket: FileDescriptor) -> FileDescriptor.Transfer {
        while !isEmpty {
            let result = socket.send(bytes, sent..<bytes.count)
            guard case .moved(let count) = result else { return result }
            sent += count
        }
        removeAll()
        return .moved(0)
    }

    private mutating func appendLength(_ count: Int) {
        for shift in [24, 16, 8, 0] { bytes.append(UInt8(truncatingIfNeeded: count >> shift)) }
    }

    private mutating func makeRoom(for count: Int) -> Bool {
        guard hasRoom(for: count) else { return false }
        // What was sent goes when it is as much as what waits: no byte costs more than one move.
        if sent > 0, sent >= byteCount {
            bytes.removeFirst(sent)
            sent = 0
        }
        return true
    }
}
