import VMMBase
import VMMHost

/// RAM with a hole: [0, 64 KiB) and [1 MiB, 1 MiB + 64 KiB).
enum TestMemory {
    static let regionByteCount: UInt64 = 64 << 10
    static let second: UInt64 = 1 << 20

    static func make() throws -> GuestMemory {
        try GuestMemory(
            ranges: [0, second].compactMap {
                GuestRange(start: GuestAddress($0), count: regionByteCount)
            }, usesHugePages: false)
    }

    /// A vector of these pieces of memory: address and length.
    static func vector(
        _ memory: GuestMemory, _ pieces: [(UInt64, UInt32)], capacity: Int = 8
    ) throws -> GuestVector {
        let vector = try GuestVectorArena(vectors: 1, capacity: capacity).makeVector()
        for (address, count) in pieces {
            let fits = vector.append(GuestAddress(address), count: count, in: memory)
            precondition(fits, "the test's pieces lie in memory")
        }
        return vector
    }
}
