import VMMBase
import VMMHost

/// Guest memory with room for a few vectors, and streams to test with.
final class NetworkFixture {
    /// The empty virtio-net header.
    static let header = [UInt8](repeating: 0, count: 12)
    private static let memoryByteCount: UInt64 = 1 << 20

    private let memory: GuestMemory
    private let arena: GuestVectorArena
    private var next: UInt64 = 0

    init() throws {
        let range = GuestRange(start: GuestAddress(0), count: Self.memoryByteCount)
        memory = try GuestMemory(ranges: [range].compactMap { $0 }, usesHugePages: false)
        arena = try GuestVectorArena(vectors: 64, capacity: 8)
    }

    /// `bytes` in guest memory, cut at `cuts`.
    func vector(_ bytes: [UInt8], cuts: [Int] = []) -> GuestVector {
        let vector = room(bytes.count, cuts: cuts)
        vector.copyIn(bytes)
        return vector
    }

    /// Zeroed guest memory.
    func room(_ count: Int, cuts: [Int] = []) -> GuestVector {
        let vector = arena.makeVector()
        for (from, to) in zip([0] + cuts, cuts + [count]) {
            _ = vector.append(
                GuestAddress(next + UInt64(from)), count: UInt32(to - from), in: memory)
        }
        next += UInt64(count)
        return vector
    }

    static func contents(_ vector: GuestVector, _ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        vector.copyOut(into: &bytes, limit: count)
        return bytes
    }

    /// An Ethernet frame of `count` bytes whose last bytes count up from `tag`.
    static func frame(
        _ count: Int, to destination: UInt8 = 2, from source: UInt8 = 4, tag: UInt8 = 0
    ) -> [UInt8] {
        let addresses: [UInt8] = [destination, 0, 0, 0, 0, 0, source, 0, 0, 0, 0, 0, 8, 0]
        return addresses + (0..<max(0, count - 14)).map { tag &+ UInt8(truncatingIfNeeded: $0) }
    }

    /// A header for TCP over IPv4: so many bytes to a segment, and a checksum at 34 + 16.
    static func tcpHeader(segment: UInt16 = 1448) -> [UInt8] {
        [1, 1, 54, 0, UInt8(truncatingIfNeeded: segment), UInt8(segment >> 8)]
            + [34, 0, 16, 0, 0, 0]
    }

    /// A frame behind its length.
    static func record(_ frame: [UInt8]) -> [UInt8] { length(UInt32(frame.count)) + frame }

    static func length(_ count: UInt32) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: count >> $0) }
    }
}

/// Turns a loop on the test's own thread.
extension EventLoop {
    /// Serves what is ready, and what that makes ready.
    func turn() throws {
        for _ in 0..<3 {
            // Posted work runs after one batch of events.
            post { [self] in stop() }
            try run()
        }
    }
}

extension FileDescriptor {
    func sendAll(_ bytes: [UInt8]) { _ = send(bytes, 0..<bytes.count) }

    /// All that there is now.
    func receiveAll() -> [UInt8] {
        var all: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 1 << 20)
        while case .moved(let count) = receiveStream(into: &part, 0..<part.count) {
            all += part.prefix(count)
        }
        return all
    }
}
