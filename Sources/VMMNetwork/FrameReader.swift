import VMMHost

/// What a peer sent that cannot be the length of an Ethernet frame.
package struct FramingFault: Error, Equatable, CustomStringConvertible {
    package let byteCount: UInt32
    package var description: String { "a frame of \(byteCount) bytes" }
}

/// Takes a byte stream apart into Ethernet frames, each behind its length: one read brings many.
/// The buffer has room for two frames of the largest size, so that a read of large ones brings more
/// than one, and never grows. What stands before a frame in its format belongs to it here.
package struct FrameReader {
    /// A virtio-net header fits before each frame, also before the first: it takes the place of the
    /// length and of bytes that are done with.
    private static let headroom = headerByteCount - FrameLength.prefix
    private static let headerByteCount = Int(TapInterface.headerByteCount)

    /// Holds the frame that `next` told of until the next `fill`.
    package private(set) var bytes: [UInt8]
    private var start = headroom
    private var end = headroom

    private let format: FrameFormat

    package init(_ format: FrameFormat = .plain) {
        self.format = format
        bytes = [UInt8](
            repeating: 0,
            count: Self.headroom + 2 * (FrameLength.prefix + format.lengths.upperBound))
    }

    /// Forgets all that has come in.
    package mutating func removeAll() {
        start = Self.headroom
        end = Self.headroom
    }

    /// No byte waits in it.
    package var isEmpty: Bool { start == end }

    /// Where the oldest frame stands in `bytes`, without its length; nil until all of it is there.
    /// Throws when the stream cannot be made sense of any more.
    package func first() throws(FramingFault) -> Range<Int>? {
        guard end - start >= FrameLength.prefix else { return nil }
        let body = start + FrameLength.prefix
        var length: UInt32 = 0
        for index in start..<body { length = length << 8 | UInt32(bytes[index]) }
        guard format.lengths.contains(Int(length)) else { throw FramingFault(byteCount: length) }
        return end - body >= Int(length) ? body..<body + Int(length) : nil
    }

    /// Takes the oldest frame.
    package mutating func next() throws(FramingFault) -> Range<Int>? {
        let frame = try first()
        if let frame { start = frame.upperBound }
        return frame
    }

    /// Receives once, after `next` gave nil: then there is room.
    package mutating func fill(from socket: FileDescriptor) -> FileDescriptor.Transfer {
        makeRoom()
        let result = socket.receiveStream(into: &bytes, end..<bytes.count)
        if case .moved(let count) = result { end += count }
        return result
    }

    /// The frame that stands at `start` in `bytes`, and its length before it, where there was one.
    package static func record(at start: Int, in bytes: [UInt8]) -> Range<Int> {
        var length = 0
        for index in start..<start + FrameLength.prefix { length = length << 8 | Int(bytes[index]) }
        return start..<start + FrameLength.prefix + length
    }

    /// Takes bytes from elsewhere, as many as there is room for; returns how many.
    package mutating func fill(from source: ArraySlice<UInt8>) -> Int {
        makeRoom()
        let count = min(source.count, bytes.count - end)
        bytes.replaceSubrange(end..<end + count, with: source.prefix(count))
        end += count
        return count
    }

    private mutating func makeRoom() {
        guard start > Self.headroom else { return }
        bytes.moveBytes(start..<end, to: Self.headroom)
        end -= start - Self.headroom
        start = Self.headroom
    }

    /// Copies a frame that `next` told of into guest memory, behind its header or an empty one;
    /// returns the bytes of both, or nil when the room is too small. A header was looked at before.
    package mutating func copy(_ frame: Range<Int>, into room: GuestVector) -> Int? {
        let missing = Self.headerByteCount - format.headerByteCount
        let whole = frame.lowerBound - missing..<frame.upperBound
        guard room.byteCount >= UInt64(whole.count) else { return nil }
        for index in whole.lowerBound..<frame.lowerBound { bytes[index] = 0 }
        return room.copyIn(bytes.span.extracting(whole))
    }

    /// What becomes of a frame that `next` told of; one that is sound has a clean header then.
    package mutating func judge(
        _ frame: Range<Int>, accepting offloads: TapInterface.Offloads
    ) -> OffloadHeader.Verdict {
        OffloadHeader.judge(frame, of: &bytes, format, accepting: offloads)
    }
}
