import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMNetwork

@Suite("SocketBackend")
struct SocketBackendTests {
    private let loop: EventLoop
    private let fixture: NetworkFixture
    private let path = NSTemporaryDirectory() + "swiftlet-net-\(UUID().uuidString.prefix(8))"

    init() throws {
        ProcessSignals.ignoreBrokenPipes()
        loop = try EventLoop()
        fixture = try NetworkFixture()
    }

    /// A backend that is a client, and its peer.
    private func connected(
        _ format: FrameFormat = .plain, patienceNanoseconds: UInt64 = 1 << 40
    ) throws -> (SocketBackend, FileDescriptor) {
        let (near, far) = try UnixSocket.streamPair()
        let backend = try SocketBackend(
            name: "net", origin: .server(path: path, retryNanoseconds: 1), connection: near,
            format: format, loop: loop, clock: ManualClock())
        backend.patienceNanoseconds = patienceNanoseconds
        try backend.attach()
        return (backend, far)
    }

    private func server(pause: UInt64 = 1) throws -> SocketBackend {
        let backend = try SocketBackend(
            name: "net", origin: .listener(UnixListener(path: path), retryNanoseconds: pause),
            loop: loop, clock: ManualClock())
        try backend.attach()
        return backend
    }

    @Test("frames leave behind their length and without their header, in one go")
    func sends() throws {
        let (backend, peer) = try connected()
        let frames = [NetworkFixture.frame(14), NetworkFixture.frame(1514, tag: 9)]
        for frame in frames {
            #expect(backend.send(fixture.vector(NetworkFixture.header + frame, cuts: [5, 20])))
        }
        #expect(peer.receiveAll().isEmpty)
        backend.flush()
        let isSame = peer.receiveAll() == frames.flatMap(NetworkFixture.record)
        #expect(isSame)
    }

    @Test("what is no frame is dropped", arguments: [13 + 12, 13, 65_554 + 12])
    func refuses(count: Int) throws {
        let (backend, peer) = try connected()
        #expect(backend.send(fixture.vector(Array(repeating: 0, count: count))))
        backend.flush()
        #expect(peer.receiveAll().isEmpty)
        #expect(backend.losses.count == 1)
    }

    /// Sends the same frame until there is no room, at most `limit` times; how many were taken.
    private func fill(_ backend: SocketBackend, _ frame: [UInt8], limit: Int = 4000) -> Int {
        let vector = fixture.room(frame.count + 12)
        let spare = fixture.vector(NetworkFixture.header + frame)
        for count in 0..<limit {
            vector.removeAll()
            _ = vector.append(spare)
            guard backend.send(vector) else {
                #expect(vector.byteCount == UInt64(frame.count) + 12)
                return count
            }
        }
        return limit
    }

    /// Reads all that the peer is sent.
    private func drain(_ peer: FileDescriptor) throws -> [UInt8] {
        var received: [UInt8] = []
        for _ in 0..<100 {
            received += peer.receiveAll()
            try loop.turn()
        }
        return received
    }

    @Test("frames that a slow peer has no room for wait, and none is lost")
    func slowPeer() throws {
        let (backend, peer) = try connected()
        let frame = NetworkFixture.frame(1000)
        let room = try #require(backend.room)
        var count = fill(backend, frame)
        #expect(count > 200 && count < 4000)
        #expect(!room.isReady(.readable))
        var received = try drain(peer)
        #expect(room.isReady(.readable))
        for _ in 0..<3 {
            count += fill(backend, frame)
            received += try drain(peer)
        }
        backend.flush()
        received += try drain(peer)
        let expected = Array(repeating: NetworkFixture.record(frame), count: count)
        let isSame = received == expected.flatMap { $0 }
        #expect(isSame)
        #expect(backend.losses.count == 0)
    }

    @Test("a peer that takes nothing for long loses frames, whole ones, until it takes some")
    func stalledPeer() throws {
        let (backend, peer) = try connected(patienceNanoseconds: 1)
        let frame = NetworkFixture.frame(1000)
        let room = try #require(backend.room)
        let taken = fill(backend, frame)
        while !room.isReady(.readable) { try loop.turn() }
        // Now it takes all, and loses it.
        #expect(fill(backend, frame, limit: 100) == 100)
        #expect(backend.losses.count == 100)
        var received = try drain(peer)
        let more = fill(backend, frame)
        #expect(more > 200 && more < 4000)
        received += try drain(peer)
        backend.flush()
        received += try drain(peer)
        let expected = Array(repeating: NetworkFixture.record(frame), count: taken + more)
        let isSame = received == expected.flatMap { $0 }
        #expect(isSame)
        #expect(backend.losses.count == 100)
    }

    @Test("a frame that waits for a peer who leaves may come, and is lost")
    func peerLeaves() throws {
        let (backend, peer) = try connected()
        let room = try #require(backend.room)
        _ = fill(backend, NetworkFixture.frame(1000))
        peer.shutDown([.sending, .receiving])
        while !room.isReady(.readable) { try loop.turn() }
        #expect(!backend.isLinkUp)
        #expect(backend.send(fixture.vector(NetworkFixture.header + NetworkFixture.frame(60))))
        #expect(backend.losses.count == 1)
    }

    @Test("large and small frames leave in their order, also when the peer is slow")
    func mixedSizes() throws {
        let (backend, peer) = try connected()
        let frames = (0..<60).map { number in
            NetworkFixture.frame(number % 3 == 0 ? 65_553 : 60 + number, tag: UInt8(number))
        }
        let memory = fixture.room(65_553 + 12, cuts: [12, 20_000, 40_000])
        var received: [UInt8] = []
        var waits = 0
        for frame in frames {
            let copy = fixture.room(0)
            _ = copy.append(memory)
            copy.truncate(to: UInt64(frame.count + 12))
            copy.copyIn(NetworkFixture.header + frame)
            while !backend.send(copy) {
                waits += 1
                received += peer.receiveAll()
                try loop.turn()
            }
        }
        for _ in 0..<20 {
            backend.flush()
            try loop.turn()
            received += peer.receiveAll()
        }
        let isSame = received == frames.flatMap(NetworkFixture.record)
        #expect(isSame)
        #expect(waits > 0 && backend.losses.count == 0)
    }

    @Test("frames that come in are announced once and taken one by one")
    func receives() throws {
        let (backend, peer) = try connected()
        let frames = (0..<5).map { NetworkFixture.frame(60 + $0, tag: UInt8($0)) }
        peer.sendAll(frames.flatMap(NetworkFixture.record))
        try loop.turn()
        #expect(backend.descriptor?.isReady(.readable) == true)
        let room = fixture.room(1530)
        let received = (0..<6).map { _ in
            backend.receive(into: room).map { NetworkFixture.contents(room, $0) }
        }
        let expected: [[UInt8]?] = frames.map { NetworkFixture.header + $0 } + [nil]
        let isSame = received == expected
        #expect(isSame)
    }

    @Test("a frame that is too large for the guest's room is dropped, the next one comes")
    func tooLarge() throws {
        let (backend, peer) = try connected()
        let frames = [NetworkFixture.frame(3000), NetworkFixture.frame(100)]
        peer.sendAll(frames.flatMap(NetworkFixture.record))
        let room = fixture.room(1530)
        #expect(backend.receive(into: room) == 112)
        #expect(backend.losses.count == 1)
    }

    @Test("nonsense ends the connection and the link", arguments: [0, 13, 65_554] as [UInt32])
    func nonsense(length: UInt32) throws {
        let (backend, peer) = try connected()
        var changes = 0
        backend.linkChanged = { changes += 1 }
        peer.sendAll(NetworkFixture.length(length))
        try loop.turn()
        #expect(!backend.isLinkUp)
        #expect(changes == 1)
        #expect(backend.receive(into: fixture.room(1530)) == nil)
        var byte: [UInt8] = [0]
        #expect(peer.receiveStream(into: &byte, 0..<1) == .endOfFile)
    }

    @Test("a server has a link with each client in turn, and its file goes with it")
    func servesOneByOne() throws {
        var backend: SocketBackend? = try server()
        #expect(backend?.isLinkUp == false)
        var first: FileDescriptor? = try UnixSocket.connectStream(to: path)
        let second = try UnixSocket.connectStream(to: path)
        try loop.turn()
        #expect(backend?.isLinkUp == true)
        let record = NetworkFixture.record(NetworkFixture.frame(60))
        first?.sendAll(record)
        second.sendAll(record)
        first = nil
        try loop.turn()
        let room = fixture.room(1530)
        // The frame of the first client is taken before its end is seen.
        #expect(backend?.receive(into: room) == 72)
        #expect(backend?.receive(into: room) == nil)
        #expect(backend?.isLinkUp == false)
        for _ in 0..<1000 where backend?.isLinkUp == false { try loop.turn() }
        #expect(backend?.isLinkUp == true)
        #expect(backend?.receive(into: room) == 72)
        backend = nil
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test("after a client's nonsense the next one waits a little")
    func pausesBetweenClients() throws {
        let backend = try server(pause: 1 << 60)
        var changes = 0
        backend.linkChanged = { changes += 1 }
        var clients: [FileDescriptor] = []
        for _ in 0..<5 {
            clients.append(try UnixSocket.connectStream(to: path))
            clients.last?.sendAll([0, 0, 0, 0])
            try loop.turn()
        }
        #expect(changes == 2)
        #expect(!backend.isLinkUp)
        backend.detach()
    }

    @Test("a client that lost its server finds the next one")
    func reconnects() throws {
        let (backend, peer) = try connected()
        let listener = try UnixListener(path: path)
        peer.sendAll([0, 0, 0, 0])
        var states: [Bool] = []
        backend.linkChanged = { [loop, unowned backend] in
            states.append(backend.isLinkUp)
            if backend.isLinkUp { loop.stop() }
        }
        try loop.run()
        #expect(states == [false, true])
        #expect(listener.accept() != nil)
        listener.removeFile()
    }

    // MARK: headers

    @Test("with headers a frame leaves with its own, and comes with its own")
    func headers() throws {
        let (backend, peer) = try connected(.offloads)
        #expect(backend.offersOffloads)
        backend.setOffloads([.checksum, .tcp4])
        let frame = NetworkFixture.tcpHeader() + NetworkFixture.frame(65_550)
        #expect(backend.send(fixture.vector(frame, cuts: [12, 4000])))
        backend.flush()
        let isSent = peer.receiveAll() == NetworkFixture.record(frame)
        peer.sendAll(NetworkFixture.record(frame))
        let room = fixture.room(65_562)
        let count = backend.receive(into: room)
        let isReceived = NetworkFixture.contents(room, 65_562) == frame
        #expect(isSent)
        #expect(count == frame.count)
        #expect(isReceived)
    }

    @Test("large frames and small ones come in their order, wherever the stream is cut")
    func cutStream() throws {
        let (backend, peer) = try connected(.offloads)
        backend.setOffloads([.checksum, .tcp4])
        let seed = UInt64.random(in: 0...UInt64.max)
        var generator = SeededGenerator(seed: seed)
        let frames = (0..<120).map { number in
            NetworkFixture.tcpHeader()
                + NetworkFixture.frame(
                    .random(in: number % 3 == 0 ? 8000...65_500 : 60...9000, using: &generator),
                    tag: UInt8(number))
        }
        var stream = frames.flatMap(NetworkFixture.record)[...]
        let room = fixture.room(65_562, cuts: [12, 3000, 40_000])
        var wrong = 0
        var count = 0
        while !stream.isEmpty {
            let part = Array(stream.prefix(.random(in: 1...70_000, using: &generator)))
            if case .moved(let sent) = peer.send(part, 0..<part.count) {
                stream = stream.dropFirst(sent)
            }
            try loop.turn()
            while let byteCount = backend.receive(into: room) {
                if NetworkFixture.contents(room, byteCount) != frames[count] { wrong += 1 }
                count += 1
            }
        }
        #expect(wrong == 0 && count == frames.count, "seed \(seed)")
        #expect(backend.losses.count == 0)
    }

    @Test("a large frame that finds little room, or lies, is dropped, and the next one comes")
    func largeAndLost() throws {
        let (backend, peer) = try connected(.offloads)
        backend.setOffloads([.checksum, .tcp4])
        let body = NetworkFixture.frame(20_000)
        peer.sendAll(NetworkFixture.record(NetworkFixture.tcpHeader() + body))
        let small = fixture.room(1530)
        let isDropped = backend.receive(into: small) == nil && backend.losses.count == 1
        peer.sendAll(NetworkFixture.record(NetworkFixture.tcpHeader(segment: 0) + body))
        peer.sendAll(NetworkFixture.record(NetworkFixture.tcpHeader() + body))
        let room = fixture.room(65_562)
        #expect(isDropped)
        #expect(backend.receive(into: room) == 20_012)
        #expect(backend.losses.count == 2)
    }

    @Test("frames that the driver cannot take, and headers that make no sense, are dropped")
    func refusedHeaders() throws {
        let (backend, peer) = try connected(.offloads)
        backend.setOffloads([.checksum])
        let body = NetworkFixture.frame(60)
        let outside: [UInt8] = [1, 0, 0, 0, 0, 0, 58, 0, 1, 0, 0, 0]
        let sound: [UInt8] = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]
        for header in [NetworkFixture.tcpHeader(), outside, sound] {
            peer.sendAll(NetworkFixture.record(header + body))
        }
        let room = fixture.room(1530)
        #expect(backend.receive(into: room) == 72)
        #expect(NetworkFixture.contents(room, 72) == sound + body)
        #expect(backend.losses.count == 2)
        #expect(backend.isLinkUp)
    }

    @Test("a frame sent while nobody is there is lost, and breaks nothing")
    func nobody() throws {
        let backend = try server()
        #expect(backend.send(fixture.vector(NetworkFixture.header + NetworkFixture.frame(60))))
        backend.flush()
        #expect(backend.losses.count == 1)
        #expect(backend.receive(into: fixture.room(1530)) == nil)
    }
}
