import Foundation
import Testing
import VMMHost
import VMMTestSupport

@testable import VMMNetwork

@Suite("FrameSwitch")
struct FrameSwitchTests {
    private let loop: EventLoop
    private let frames: FrameSwitch

    init() throws {
        ProcessSignals.ignoreBrokenPipes()
        loop = try EventLoop()
        frames = try FrameSwitch(loop: loop, clock: ManualClock())
    }

    private func port() throws -> FileDescriptor {
        let (near, far) = try UnixSocket.streamPair()
        frames.add(near)
        return far
    }

    @Test("frames go to all, and to one alone when it is known")
    func forwards() throws {
        let (a, b, c) = (try port(), try port(), try port())
        let hello = NetworkFixture.record(NetworkFixture.frame(60, to: 0xff, from: 0xa))
        let answer = NetworkFixture.record(NetworkFixture.frame(70, to: 0xa, from: 0xc))
        a.sendAll(hello)
        try loop.turn()
        c.sendAll(answer)
        try loop.turn()
        #expect(b.receiveAll() == hello)
        #expect(c.receiveAll() == hello)
        #expect(a.receiveAll() == answer)
        let sent = frames.counters.map(\.counters.sentFrames)
        let received = frames.counters.map(\.counters.receivedBytes)
        #expect(sent == [1, 1, 1])
        #expect(received == [60, 0, 70])
    }

    @Test("with headers the addresses are behind them, and both go on untouched")
    func forwardsHeaders() throws {
        let frames = try FrameSwitch(.offloads, loop: loop, clock: ManualClock())
        let peers = try (0..<3).map { _ in
            let (near, far) = try UnixSocket.streamPair()
            frames.add(near)
            return far
        }
        let hello = NetworkFixture.header + NetworkFixture.frame(60, to: 0xff, from: 0xa)
        let answer =
            NetworkFixture.tcpHeader() + NetworkFixture.frame(65_553, to: 0xa, from: 0xc)
        peers[0].sendAll(NetworkFixture.record(hello))
        try loop.turn()
        peers[2].sendAll(NetworkFixture.record(answer))
        for _ in 0..<3 { try loop.turn() }
        let isFlooded = peers[1].receiveAll() == NetworkFixture.record(hello)
        let isAnswered = peers[0].receiveAll() == NetworkFixture.record(answer)
        #expect(isFlooded)
        #expect(isAnswered)
        #expect(frames.counters.map(\.counters.sentFrames) == [1, 1, 1])
        frames.finish()
    }

    @Test("many frames of two flows arrive in their order")
    func order() throws {
        let (a, b) = (try port(), try port())
        let sent = (0..<100).map { NetworkFixture.record(NetworkFixture.frame(100, tag: $0)) }
        var received: [UInt8] = []
        for record in sent {
            for byte in [record.prefix(50), record.dropFirst(50)] { a.sendAll(Array(byte)) }
            try loop.turn()
            received += b.receiveAll()
        }
        let isSame = received == sent.flatMap { $0 }
        #expect(isSame)
    }

    @Test("large frames and small ones keep their order, and those that are lost are whole")
    func largeFrames() throws {
        let (a, b) = (try port(), try port())
        b.sendAll(NetworkFixture.record(NetworkFixture.frame(60, to: 0xff, from: 2)))
        try loop.turn()
        _ = a.receiveAll()
        let records = (0..<240).map { number in
            NetworkFixture.record(
                NetworkFixture.frame(number % 2 == 0 ? 60_000 : 100, tag: UInt8(number)))
        }
        var received: [UInt8] = []
        for (number, record) in records.enumerated() {
            a.sendAll(record)
            for _ in 0..<2 { try loop.turn() }
            // Then the reader sleeps for a while.
            if number < 10 { received += b.receiveAll() }
        }
        for _ in 0..<80 {
            received += b.receiveAll()
            try loop.turn()
        }
        let counters = frames.counters[1].counters
        var reader = FrameReader()
        var count = 0
        var rest = received[...]
        while !rest.isEmpty {
            rest = rest.dropFirst(reader.fill(from: rest))
            while let frame = try reader.next() {
                // The tag of its first byte behind the addresses is its number.
                let isWhole =
                    records[Int(reader.bytes[frame.lowerBound + 14])].dropFirst(4)
                    == reader.bytes[frame]
                count += isWhole ? 1 : 0
            }
        }
        #expect(UInt64(count) == counters.sentFrames)
        #expect(counters.sentFrames + counters.droppedFrames == 240)
        #expect(counters.droppedFrames > 0)
    }

    @Test("a flood to many ports is handed on in turns, whole and in order")
    func turns() throws {
        let ports = try (0..<FrameSwitch.portLimit).map { _ in try port() }
        let flood = (0..<200).map {
            NetworkFixture.record(NetworkFixture.frame(14, to: 0xff, from: 2 * UInt8($0 % 100)))
        }
        ports[0].sendAll(flood.flatMap { $0 })
        loop.post { [loop] in loop.stop() }
        try loop.run()
        // Each costs 256 of 16384.
        #expect(frames.counters[0].counters.receivedFrames == 64)

        let other = NetworkFixture.record(NetworkFixture.frame(20, to: 0xff, from: 0xaa))
        ports[1].sendAll(other)
        loop.post { [loop] in loop.stop() }
        try loop.run()
        #expect(frames.counters[1].counters.receivedFrames == 1)
        for _ in 0..<3 { try loop.turn() }
        #expect(frames.counters[0].counters.receivedFrames == 200)
        var received = ports[2].receiveAll()
        received.removeSubrange(try #require(received.firstRange(of: other)))
        let isSame = received == flood.flatMap { $0 }
        #expect(isSame)
    }

    @Test("slow ports share the switch's memory, and each has some of its own")
    func sharedMemory() throws {
        let frames = try FrameSwitch(loop: loop, clock: ManualClock(), sharedLimit: 1 << 20)
        let ends = try (0..<4).map { _ in try UnixSocket.streamPair() }
        for end in ends { frames.add(end.0) }
        let record = NetworkFixture.record(NetworkFixture.frame(60_000, to: 0xff))
        for _ in 0..<100 {
            ends[0].1.sendAll(record)
            try loop.turn()
        }
        let dropped = frames.counters.map(\.counters.droppedFrames)
        #expect(dropped[0] == 0 && dropped[1...].allSatisfy { $0 > 50 })
        for end in ends[1...] {
            var count = 0
            for _ in 0..<20 {
                count += end.1.receiveAll().count
                try loop.turn()
            }
            #expect(count > 256 << 10 && count < 1 << 20)
        }
        frames.finish()
    }

    @Test("a port that does not read loses its own frames only, and gets whole ones later")
    func slowPort() throws {
        let (a, slow, quick) = (try port(), try port(), try port())
        let record = NetworkFixture.record(NetworkFixture.frame(1500, to: 0xff))
        var received = 0
        for _ in 0..<3500 {
            a.sendAll(record)
            try loop.turn()
            received += quick.receiveAll().count
        }
        #expect(received == 3500 * record.count)
        let counters = frames.counters.map(\.counters)
        #expect(counters[1].droppedFrames > 0)
        #expect(counters[2].droppedFrames == 0)
        #expect(counters[1].droppedFrames + counters[1].sentFrames == 3500)
        var late: [UInt8] = []
        for _ in 0..<100 {
            late += slow.receiveAll()
            try loop.turn()
        }
        let expected = Array(repeating: record, count: Int(counters[1].sentFrames))
        let isSame = late == expected.flatMap { $0 }
        #expect(isSame)
    }

    @Test(
        "a peer that makes no sense, or leaves within a frame, goes; the others stay",
        arguments: [[0, 0, 0, 0], [255, 255, 255, 255, 1], [0, 0, 0, 60, 1, 2]] as [[UInt8]])
    func hostile(bytes: [UInt8]) throws {
        let (a, b) = (try port(), try port())
        var hostile: FileDescriptor? = try port()
        hostile?.sendAll(bytes)
        try loop.turn()
        hostile = nil
        try loop.turn()
        #expect(frames.counters.map(\.port) == [0, 1])
        let record = NetworkFixture.record(NetworkFixture.frame(60))
        a.sendAll(record)
        try loop.turn()
        #expect(b.receiveAll() == record)
        frames.add(try UnixSocket.streamPair().0)
        #expect(frames.counters.map(\.port) == [0, 1, 2])
    }

    @Test("one connection too many is closed")
    func tooMany() throws {
        let ends = try (0..<FrameSwitch.portLimit).map { _ in try port() }
        let more = try port()
        #expect(frames.counters.count == ends.count)
        var byte: [UInt8] = [0]
        #expect(more.receiveStream(into: &byte, 0..<1) == .endOfFile)
    }

    @Test("clients of a socket are ports, and its file goes with the switch")
    func listens() throws {
        let path = NSTemporaryDirectory() + "swiftlet-switch-\(UUID().uuidString.prefix(8))"
        try frames.add(UnixListener(path: path))
        let clients = try (0..<3).map { _ in try UnixSocket.connectStream(to: path) }
        try loop.turn()
        #expect(frames.counters.count == clients.count)
        frames.finish()
        #expect(!FileManager.default.fileExists(atPath: path))
    }
}
