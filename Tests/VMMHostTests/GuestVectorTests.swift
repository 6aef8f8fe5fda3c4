import Testing
import VMMBase
import VMMHost

@Suite("GuestVector")
struct GuestVectorTests {
    let memory: GuestMemory

    init() throws {
        memory = try TestMemory.make()
        _ = memory.copyIn((0..<64).map { UInt8($0) }, at: GuestAddress(0))
    }

    /// Three slices of 4, 2 and 8 bytes: 0 to 3, 16 and 17, 32 to 39.
    private func slices() throws -> GuestVector {
        try TestMemory.vector(memory, [(0, 4), (16, 2), (32, 8)])
    }

    private func bytes(_ vector: GuestVector, limit: Int = .max) -> [UInt8] {
        var bytes: [UInt8] = []
        vector.copyOut(into: &bytes, limit: limit)
        return bytes
    }

    // MARK: append

    @Test("slices count with their bytes; empty ones take no room")
    func append() throws {
        let vector = try TestMemory.vector(memory, [(0, 4), (5, 0), (16, 2)], capacity: 2)
        #expect(vector.count == 2)
        #expect(vector.byteCount == 6)
        #expect(!vector.append(GuestAddress(32), count: 1, in: memory))
        #expect(bytes(vector) == [0, 1, 2, 3, 16, 17])
    }

    /// Address and length of what is not RAM of one region.
    private static let outside: [(UInt64, UInt32)] = [
        (TestMemory.regionByteCount, 0), (TestMemory.regionByteCount - 1, 2), (.max, 1),
        (0, .max), (TestMemory.second - 1, 2),
    ]

    @Test("what is not RAM is not added", arguments: outside)
    func refusesOutside(address: UInt64, count: UInt32) throws {
        let vector = try slices()
        #expect(!vector.append(GuestAddress(address), count: count, in: memory))
        #expect(vector.byteCount == 14)
    }

    @Test("a vector is added whole or not at all")
    func appendVector() throws {
        let target = try TestMemory.vector(memory, [(48, 1)], capacity: 4)
        let source = try slices()
        #expect(target.append(source))
        #expect(!target.append(source))
        #expect(bytes(target) == [48] + bytes(source))
    }

    // MARK: cutting

    @Test(
        "the first bytes are dropped, over slices, and no more than there are",
        arguments: zip([0, 3, 4, 5, 6, 13, 14, 15, .max], [14, 11, 10, 9, 8, 1, 0, 0, 0]))
    func removeFirst(count: Int, rest: Int) throws {
        let vector = try slices()
        let all = bytes(vector)
        vector.removeFirst(count)
        #expect(bytes(vector) == Array(all.suffix(rest)))
        #expect(vector.byteCount == UInt64(rest))
        #expect(vector.isEmpty == (rest == 0))
    }

    @Test(
        "all but the first bytes are dropped",
        arguments: zip([0, 1, 4, 5, 6, 13, 14, .max] as [UInt64], [0, 1, 4, 5, 6, 13, 14, 14]))
    func truncate(to count: UInt64, rest: Int) throws {
        let vector = try slices()
        let all = bytes(vector)
        vector.truncate(to: count)
        #expect(bytes(vector) == Array(all.prefix(rest)))
        #expect(vector.byteCount == UInt64(rest))
    }

    @Test("a vector may be cut at both ends until nothing is left")
    func bothEnds() throws {
        let vector = try slices()
        vector.removeFirst(5)
        vector.truncate(to: 2)
        #expect(bytes(vector) == [17, 32])
        vector.removeFirst(2)
        vector.truncate(to: 0)
        #expect(vector.isEmpty && vector.count == 0)
    }

    @Test("the last byte is taken off and stored later, across an empty slice, until none is left")
    func lastByte() throws {
        let vector = try TestMemory.vector(memory, [(0, 2), (63, 1)])
        let last = vector.removeLastByte()
        let next = vector.removeLastByte()
        last?.store(0xaa)
        next?.store(0xbb)
        _ = vector.removeLastByte()
        #expect(memory.copyOut(GuestAddress(63), count: 1) == [0xaa])
        #expect(memory.copyOut(GuestAddress(0), count: 2) == [0, 0xbb])
        #expect(vector.removeLastByte() == nil)
    }

    // MARK: bytes

    @Test("bytes are copied out up to a limit", arguments: [0, 1, 5, 14, 15])
    func copyOut(limit: Int) throws {
        let all: [UInt8] = [0, 1, 2, 3, 16, 17, 32, 33, 34, 35, 36, 37, 38, 39]
        #expect(bytes(try slices(), limit: limit) == Array(all.prefix(limit)))
    }

    @Test(
        "bytes are copied in as far as they fit",
        arguments: zip([0, 1, 5, 14, 20], [0, 1, 5, 14, 14]))
    func copyIn(count: Int, expected: Int) throws {
        let vector = try slices()
        let source = (0..<count).map { UInt8(0x80 + $0) }
        #expect(vector.copyIn(source) == expected)
        #expect(bytes(vector).prefix(expected) == source.prefix(expected))
        // The byte behind the first slice belongs to somebody else.
        #expect(memory.copyOut(GuestAddress(4), count: 1) == [4])
    }

    @Test("an integer is read across slices, and is nil where the vector ends")
    func load() throws {
        let vector = try slices()
        #expect(vector.load(UInt32.self, at: 3) == 0x2011_1003)
        #expect(vector.load(UInt64.self, at: 6) == 0x2726_2524_2322_2120)
        #expect(vector.load(UInt64.self, at: 7) == nil)
        #expect(vector.load(UInt16.self, at: 13) == nil)
        #expect(vector.load(UInt8.self, at: 14) == nil)
        vector.removeFirst(3)
        #expect(vector.load(UInt16.self, at: 0) == 0x1003)
    }

    @Test("a byte is stored where the vector has one")
    func store() throws {
        let vector = try slices()
        #expect(vector.store(0x99, at: 5))
        #expect(!vector.store(0x99, at: 14))
        #expect(!vector.store(0x99, at: .max))
        #expect(memory.copyOut(GuestAddress(17), count: 1) == [0x99])
    }

    @Test("random bytes fill every slice and nothing else")
    func random() throws {
        let vector = try TestMemory.vector(memory, [(256, 32), (512, 32)])
        #expect(vector.fillFromSystemRandom() == 64)
        // 32 zero bytes come by chance once in 2^256 runs.
        #expect(memory.copyOut(GuestAddress(512), count: 32) != Array(repeating: 0, count: 32))
        #expect(memory.copyOut(GuestAddress(288), count: 32) == Array(repeating: 0, count: 32))
    }

    @Test("a vector of many slices keeps what it had, is emptied, and does not reach its neighbour")
    func grows() throws {
        let arena = try GuestVectorArena(vectors: 2, capacity: 20)
        let (vector, neighbour) = (arena.makeVector(), arena.makeVector())
        #expect(neighbour.append(GuestAddress(63), count: 1, in: memory))

        for index in 0..<22 {
            #expect(vector.append(GuestAddress(UInt64(index)), count: 1, in: memory))
            // The list has a head that is gone when it moves to the larger room.
            if index == 3 { vector.removeFirst(2) }
        }

        // What was removed has left its room, and now that is used up.
        #expect(!vector.append(GuestAddress(0), count: 1, in: memory))
        #expect(!vector.append(neighbour))
        #expect(bytes(vector) == (2..<22).map { UInt8($0) })
        #expect(bytes(neighbour) == [63])
        vector.removeAll()
        #expect(vector.append(neighbour) && bytes(vector) == [63])
    }

    @Test(
        "a vector that gains at its end what it loses at its start goes on for ever",
        arguments: [3, 8, 20])
    func slides(length: Int) throws {
        let arena = try GuestVectorArena(vectors: 2, capacity: 20)
        let (vector, neighbour) = (arena.makeVector(), arena.makeVector())
        #expect(neighbour.append(GuestAddress(63), count: 1, in: memory))

        for index in 0..<100 {
            if vector.count == length { vector.removeFirst(1) }
            #expect(vector.append(GuestAddress(UInt64(index % 60)), count: 1, in: memory))
        }

        #expect(bytes(vector) == (100 - length..<100).map { UInt8($0 % 60) })
        #expect(bytes(neighbour) == [63])
    }

    /// Every limit, and every part of it removed: what is left is the rest of the vector.
    @Test("a limit hides the rest, and its end shows it again", arguments: 0...14 as ClosedRange)
    func limits(limit: UInt64) throws {
        for removed in 0...Int(limit) {
            let vector = try slices()
            let whole = bytes(vector)

            vector.limit(to: limit)
            let visible = bytes(vector)
            // In two steps, for a slice may be removed in parts.
            vector.removeFirst(removed / 2)
            vector.removeFirst(removed - removed / 2)
            let left = vector.byteCount
            vector.unlimit()

            #expect(visible == Array(whole.prefix(Int(limit))))
            #expect(left == limit - UInt64(removed))
            #expect(bytes(vector) == Array(whole.dropFirst(removed)))
            #expect(vector.byteCount == UInt64(14 - removed))
        }
    }

    @Test("alignment is that of every slice, in address and length")
    func alignment() throws {
        #expect(try TestMemory.vector(memory, [(512, 512), (4096, 1024)]).isAligned(to: 512))
        #expect(try !TestMemory.vector(memory, [(512, 512), (4097, 512)]).isAligned(to: 512))
        #expect(try !TestMemory.vector(memory, [(512, 511)]).isAligned(to: 512))
    }

    @Test("zeros fill as much as is asked for", arguments: [0, 1, 4, 5, 14, 99] as [UInt64])
    func zeros(count: UInt64) throws {
        let vector = try slices()
        let before = bytes(vector)
        vector.fillZeros(count)
        let zeroed = Int(min(count, 14))
        #expect(bytes(vector) == Array(repeating: 0, count: zeroed) + before.dropFirst(zeroed))
    }

    @Test("vectors of one arena keep apart, and each is empty at first")
    func arena() throws {
        let arena = try GuestVectorArena(vectors: 2, capacity: 1)
        let vectors = [arena.makeVector(), arena.makeVector()]
        #expect(vectors[0].append(GuestAddress(1), count: 1, in: memory))
        #expect(vectors[1].append(GuestAddress(2), count: 1, in: memory))
        #expect(vectors.map { bytes($0) } == [[1], [2]])
    }

    @Test(
        "slices are added without the first bytes of their list",
        arguments: [(0, [1, 2, 3, 4, 5]), (1, [2, 3, 4, 5]), (2, [3, 4, 5]), (5, []), (9, [])]
            as [(UInt64, [UInt8])])
    func skipping(count: UInt64, expected: [UInt8]) throws {
        let memory = try TestMemory.make()
        _ = memory.copyIn([1, 2, 3, 4, 5], at: GuestAddress(0))
        let source = try TestMemory.vector(memory, [(0, 2), (2, 3)])
        let vector = try TestMemory.vector(memory, [])
        let isAdded = vector.append(source, skipping: count)
        var bytes: [UInt8] = []
        vector.copyOut(into: &bytes)
        #expect(isAdded && bytes == expected && vector.byteCount == UInt64(expected.count))
    }

    @Test("bytes are copied over a part of a buffer, as many as fit")
    func copyOver() throws {
        let memory = try TestMemory.make()
        _ = memory.copyIn([1, 2, 3, 4, 5], at: GuestAddress(0))
        let vector = try TestMemory.vector(memory, [(0, 2), (2, 3)])
        var bytes = [UInt8](repeating: 9, count: 6)
        let first = vector.copyOut(over: &bytes, 1..<4)
        let second = vector.copyOut(over: &bytes, 5..<5)
        #expect(first == 3 && second == 0 && bytes == [9, 1, 2, 3, 9, 9])
    }
}
