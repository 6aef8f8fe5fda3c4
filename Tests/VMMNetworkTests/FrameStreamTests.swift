import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMNetwork

@Suite("Frame stream")
struct FrameStreamTests {
    /// All frames that come out when the stream arrives in pieces with these ends.
    private static func frames(_ stream: [UInt8], cuts: [Int]) throws -> [[UInt8]] {
        var reader = FrameReader()
        var frames: [[UInt8]] = []
        var start = 0
        for cut in cuts + [stream.count] {
            while start < cut {
                while let frame = try reader.next() { frames.append(Array(reader.bytes[frame])) }
                start += reader.fill(from: stream[start..<cut])
            }
        }
        while let frame = try reader.next() { frames.append(Array(reader.bytes[frame])) }
        return frames
    }

    @Test("frames come out whole wherever the stream is cut")
    func everyCut() throws {
        let sent = [NetworkFixture.frame(14), NetworkFixture.frame(60), NetworkFixture.frame(15)]
        let stream = sent.flatMap(NetworkFixture.record)
        for cut in 0...stream.count {
            let isSame = try Self.frames(stream, cuts: [cut]) == sent
            #expect(isSame, "cut at \(cut)")
        }
        let isSame = try Self.frames(stream, cuts: Array(1..<stream.count)) == sent
        #expect(isSame, "a byte at a time")
    }

    @Test("the largest frame fits, after any other")
    func largest() throws {
        let sent = [
            NetworkFixture.frame(FrameLength.most), NetworkFixture.frame(20),
            NetworkFixture.frame(FrameLength.most),
        ]
        let stream = sent.flatMap(NetworkFixture.record)
        let isSame = try Self.frames(stream, cuts: [100, 65_560, 65_580]) == sent
        #expect(isSame)
    }

    @Test("any lengths in any pieces are the same frames")
    func random() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<40 {
            let sent = (0..<20).map { number in
                NetworkFixture.frame(
                    Int.random(in: 14...2000, using: &generator), tag: UInt8(number))
            }
            let stream = sent.flatMap(NetworkFixture.record)
            let cuts = (0..<30).map { _ in Int.random(in: 0...stream.count, using: &generator) }
            let isSame = try Self.frames(stream, cuts: cuts.sorted()) == sent
            #expect(isSame, "seed \(seed)")
        }
    }

    @Test(
        "a length that no frame has ends the stream",
        arguments: [0, 1, 13, 65_554, 65_536 * 2, .max] as [UInt32])
    func badLength(count: UInt32) throws {
        var reader = FrameReader()
        _ = reader.fill(from: (NetworkFixture.length(count) + [1, 2, 3])[...])
        #expect(throws: FramingFault(byteCount: count)) { try reader.next() }
    }

    @Test("a frame goes into guest memory behind an empty header; a small room takes none")
    func copies() throws {
        let fixture = try NetworkFixture()
        let sent = NetworkFixture.frame(40, tag: 7)
        var reader = FrameReader()
        _ = reader.fill(from: [sent, sent].flatMap(NetworkFixture.record)[...])
        let room = fixture.room(60, cuts: [5, 30])
        let small = fixture.room(51)
        let first = try #require(try reader.next())
        let second = try #require(try reader.next())
        #expect(reader.copy(first, into: room) == 52)
        #expect(NetworkFixture.contents(room, 52) == NetworkFixture.header + sent)
        #expect(reader.copy(second, into: small) == nil)
    }

    @Test("with headers the largest frame is longer by one, and so is the least")
    func withHeaders() throws {
        let sent = [FrameLength.least, FrameLength.most].map {
            NetworkFixture.header + NetworkFixture.frame($0)
        }
        var reader = FrameReader(.offloads)
        var received: [[UInt8]] = []
        for frame in sent {
            let record = NetworkFixture.record(frame)
            #expect(reader.fill(from: record[...]) == record.count)
            received += try reader.next().map { [Array(reader.bytes[$0])] } ?? []
        }
        let isSame = received == sent
        #expect(isSame)
    }

    @Test("a header alone is no frame", arguments: [25, 65_566] as [UInt32])
    func badLengthWithHeader(count: UInt32) throws {
        var reader = FrameReader(.offloads)
        _ = reader.fill(from: NetworkFixture.length(count)[...])
        #expect(throws: FramingFault(byteCount: count)) { try reader.next() }
    }

    @Test("a queue keeps what the socket does not take, finishes each frame, and has a bound")
    func queue() throws {
        let (near, far) = try UnixSocket.streamPair()
        let record = NetworkFixture.record(NetworkFixture.frame(1000))
        var queue = FrameQueue(limit: 10_040)
        var accepted = 0
        // More than any socket holds at once; the far end reads a little now and then.
        var received: [UInt8] = []
        for _ in 0..<5000 {
            if queue.append(record: record[...]) {
                accepted += 1
            } else if queue.flush(to: near) == .wouldBlock {
                var part = [UInt8](repeating: 0, count: 777)
                if case .moved(let count) = far.receiveStream(into: &part, 0..<777) {
                    received += part.prefix(count)
                }
            }
        }
        while !queue.isEmpty {
            _ = queue.flush(to: near)
            received += far.receiveAll()
        }
        received += far.receiveAll()
        let expected = Array(repeating: record, count: accepted)
        let isSame = received == expected.flatMap { $0 }
        #expect(isSame)
        #expect(accepted > 10 && accepted < 5000)
        #expect(queue.byteCount == 0)
    }

    @Test("a limit may change while frames wait: the next frame is held to it")
    func changedLimit() {
        let record = NetworkFixture.record(NetworkFixture.frame(1000))
        var queue = FrameQueue(limit: 3 * record.count)
        let first = (0..<4).map { _ in queue.append(record: record[...]) }
        queue.limit = 4 * record.count
        let second = (0..<2).map { _ in queue.append(record: record[...]) }
        queue.limit = 1000
        let third = queue.append(record: record[...])
        #expect(first == [true, true, true, false])
        #expect(second == [true, false] && !third)
        #expect(queue.byteCount == 4 * record.count)
    }
}
