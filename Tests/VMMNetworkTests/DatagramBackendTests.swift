import Foundation
import Testing
import VMMHost
import VMMTestSupport

@testable import VMMNetwork

@Suite("DatagramBackend")
struct DatagramBackendTests {
    private let loop: EventLoop
    private let fixture: NetworkFixture
    private let clock = ManualClock()
    private let base = NSTemporaryDirectory() + "swiftlet-dgram-\(UUID().uuidString.prefix(8))"

    init() throws {
        loop = try EventLoop()
        fixture = try NetworkFixture()
    }

    private func backend(_ format: FrameFormat = .plain) throws -> DatagramBackend {
        try DatagramBackend(
            path: base + "-peer", localPath: base + "-ours", format: format, loop: loop,
            clock: clock)
    }

    private func send(_ frame: [UInt8], _ backend: DatagramBackend) {
        #expect(backend.send(fixture.vector(NetworkFixture.header + frame)))
    }

    @Test("a frame is a datagram, both ways, whoever comes first")
    func bothWays() throws {
        let backend = try backend()
        let frame = NetworkFixture.frame(60)
        send(frame, backend)
        let peer = try UnixDatagramSocket(path: base + "-peer")
        // The next attempt is a second away.
        send(frame, backend)
        clock.advance(nanoseconds: 1_000_000_000)
        send(frame, backend)
        var bytes = [UInt8](repeating: 0, count: 100)
        #expect(peer.descriptor.receive(into: &bytes, 0..<100) == .moved(60))
        #expect(Array(bytes.prefix(60)) == frame)
        #expect(peer.descriptor.receive(into: &bytes, 0..<100) == .wouldBlock)
        #expect(backend.losses.count == 2)

        try UnixSocket.connect(peer.descriptor, to: base + "-ours")
        peer.descriptor.sendAll(frame)
        let room = fixture.room(1530)
        #expect(backend.receive(into: room) == 72)
        #expect(NetworkFixture.contents(room, 72) == NetworkFixture.header + frame)
        #expect(backend.receive(into: room) == nil)
    }

    @Test("datagrams that are no frame, or too large for the room, are dropped")
    func hostile() throws {
        let peer = try UnixDatagramSocket(path: base + "-peer")
        let backend = try backend()
        try UnixSocket.connect(peer.descriptor, to: base + "-ours")
        for count in [13, 65_554, 2000] {
            peer.descriptor.sendAll([UInt8](repeating: 0, count: count))
        }
        peer.descriptor.sendAll(NetworkFixture.frame(60))
        #expect(backend.receive(into: fixture.room(1530)) == 72)
        #expect(backend.losses.count == 3)
    }

    @Test("with headers a datagram has one; what the driver cannot take is dropped")
    func headers() throws {
        let peer = try UnixDatagramSocket(path: base + "-peer")
        let backend = try backend(.offloads)
        try UnixSocket.connect(peer.descriptor, to: base + "-ours")
        let frame = NetworkFixture.tcpHeader() + NetworkFixture.frame(3000)
        #expect(backend.send(fixture.vector(frame, cuts: [12])))
        var bytes = [UInt8](repeating: 0, count: 4000)
        #expect(peer.descriptor.receive(into: &bytes, 0..<4000) == .moved(3012))
        let isSent = bytes.prefix(3012) == frame[...]
        let room = fixture.room(65_562)
        peer.descriptor.sendAll(frame)
        let refused = backend.receive(into: room)
        backend.setOffloads([.checksum, .tcp4])
        peer.descriptor.sendAll(frame)
        let taken = backend.receive(into: room)
        let isReceived = NetworkFixture.contents(room, 3012) == frame
        #expect(isSent)
        #expect(refused == nil && backend.losses.count == 1)
        #expect(taken == 3012)
        #expect(isReceived)
    }

    @Test("a path in use is refused, a file that a dead process left is replaced")
    func paths() throws {
        let backend = try backend()
        #expect(backend.isLinkUp)
        #expect(throws: UnixListener.Failure.self) {
            try UnixDatagramSocket(path: base + "-ours")
        }
        backend.finish()
        #expect(!FileManager.default.fileExists(atPath: base + "-ours"))
    }
}
