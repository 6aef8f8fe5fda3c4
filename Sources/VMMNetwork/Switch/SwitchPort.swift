import VMMHost

/// What went through one port, since it was connected.
package struct PortCounters: Equatable, Sendable {
    /// From the port's guest.
    package var receivedFrames: UInt64 = 0
    package var receivedBytes: UInt64 = 0
    /// To it.
    package var sentFrames: UInt64 = 0
    package var sentBytes: UInt64 = 0
    /// Frames for it that its slowness lost.
    package var droppedFrames: UInt64 = 0
}

/// One connection to a switch. Belongs to the switch's loop.
final class SwitchPort {
    /// What a slow port may always have waiting, in bytes: as much again as the kernel keeps for a
    /// socket.
    static let share = 256 << 10
    /// The most that it may have waiting while the switch has memory: what a TCP connection has
    /// under way by Linux's defaults, so that one alone loses nothing.
    static let mostWaiting = 4 << 20
    /// From here on frames are worth a system call of their own and not a copy.
    private static let directByteCount = 8 << 10

    let number: Int
    let socket: FileDescriptor
    var reader: FrameReader
    var counters = PortCounters()
    /// Has frames that `flush` was not called for yet.
    var isTouched = false
    /// Has frames in its reader that wait for its next turn.
    var isUnfinished = false
    private var queue = FrameQueue(limit: share)
    /// Bytes that wait for the socket.
    var waitingByteCount: Int { queue.byteCount }
    private(set) var waitsForRoom = false
    private let headerByteCount: Int

    init(number: Int, socket: FileDescriptor, _ format: FrameFormat) {
        reader = FrameReader(format)
        headerByteCount = format.headerByteCount
        self.number = number
        self.socket = socket
    }

    /// Sends frames that stand one behind the other in `bytes`, each with its length in front. Few
    /// bytes wait for `flush`. What the socket does not take waits, `limit` bytes at most; a frame
    /// that does not fit any more is dropped and counted.
    func send(_ records: Range<Int>, of bytes: [UInt8], limit: Int) {
        queue.limit = limit
        var sent = records.lowerBound
        if records.count >= Self.directByteCount, !waitsForRoom {
            if !queue.isEmpty { _ = queue.flush(to: socket) }
            if queue.isEmpty, case .moved(let count) = socket.send(bytes, records) { sent += count }
        }
        var start = records.lowerBound
        while start < records.upperBound {
            let record = FrameReader.record(at: start, in: bytes)
            // A frame that has begun finds an empty queue: it fits.
            let rest = max(record.lowerBound, min(sent, record.upperBound))..<record.upperBound
            count(record, isTaken: rest.isEmpty || queueUp(bytes[rest]))
            start = record.upperBound
        }
    }

    private func queueUp(_ record: ArraySlice<UInt8>) -> Bool {
        if queue.append(record: record) { return true }
        if waitsForRoom { return false }
        _ = queue.flush(to: socket)
        return queue.append(record: record)
    }

    private func count(_ record: Range<Int>, isTaken: Bool) {
        if isTaken {
            counters.sentFrames &+= 1
            counters.sentBytes &+= UInt64(record.count - FrameLength.prefix - headerByteCount)
        } else {
            counters.droppedFrames &+= 1
        }
    }

    /// Writes what waits. False when the peer is gone; it is told by `waitsForRoom` when some is
    /// left, and then the loop has to call again when there is room.
    func flush() -> Bool {
        switch queue.flush(to: socket) {
        case .moved: waitsForRoom = false
        case .wouldBlock: waitsForRoom = true
        case .endOfFile, .failed: return false
        }
        return true
    }
}
