import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMDevices

@Suite("ByteBacklog")
struct ByteBacklogTests {
    @Test("bytes leave as they came, whatever the pieces", arguments: [11, 12, 13])
    func order(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let range = try #require(GuestRange(start: GuestAddress(0), count: 1 << 20))
        let memory = try GuestMemory(ranges: [range])
        let vector = try GuestVectorArena(vectors: 1, capacity: 8).makeVector()
        var pair: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
        let (near, far) = (FileDescriptor(owning: pair[0]), FileDescriptor(owning: pair[1]))
        var pool = ByteBacklog.Pool()
        var backlog = ByteBacklog()
        var sent: [UInt8] = []
        var received: [UInt8] = []
        for _ in 0..<300 {
            let count = Int.random(in: 1...20000, using: &random)
            if backlog.count + count <= 256 << 10 {
                let bytes = (0..<count).map { UInt8(truncatingIfNeeded: sent.count &+ $0 &* 7) }
                _ = memory.copyIn(bytes, at: GuestAddress(4096))
                vector.removeAll()
                let cut = count / 3
                _ = vector.append(GuestAddress(4096), count: UInt32(cut), in: memory)
                _ = vector.append(
                    GuestAddress(4096 + UInt64(cut)), count: UInt32(count - cut), in: memory)
                backlog.append(vector, &pool)
                sent += bytes
            }
            if Bool.random(using: &random) { _ = backlog.send(to: near, &pool) }
            if Bool.random(using: &random) { received += far.arrived() ?? [] }
        }
        while !backlog.isEmpty {
            _ = backlog.send(to: near, &pool)
            received += far.arrived() ?? []
        }
        received += far.arrived() ?? []
        let isEqual = sent == received
        #expect(isEqual, "seed \(seed)")
    }

    @Test("what a small backlog holds is small, also after a large one has left its buffer")
    func capacity() throws {
        let range = try #require(GuestRange(start: GuestAddress(0), count: 1 << 20))
        let memory = try GuestMemory(ranges: [range])
        let vector = try GuestVectorArena(vectors: 1, capacity: 8).makeVector()
        var pool = ByteBacklog.Pool()
        func hold(_ count: UInt32, _ backlog: inout ByteBacklog) {
            vector.removeAll()
            _ = vector.append(GuestAddress(4096), count: count, in: memory)
            backlog.append(vector, &pool)
        }

        var large = ByteBacklog()
        hold(256 << 10, &large)
        large.removeAll(&pool)
        var small = ByteBacklog()
        hold(5000, &small)

        #expect(small.count == 5000 && small.capacity == 8192)
    }
}
