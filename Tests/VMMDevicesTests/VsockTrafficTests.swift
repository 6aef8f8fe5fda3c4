import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

/// Many connections at once between a guest and programs of the host, which stop reading, close
/// one way or both, and give little credit: every byte arrives once and in order.
@Suite("Vsock traffic")
struct VsockTrafficTests {
    /// One way of a connection: bytes that count in a pattern of their own.
    private struct Flow {
        let pattern: Int
        let total: Int
        var sent = 0
        var received = 0
        var isEndSent = false
        var isEndSeen = false

        /// Of a prime length, so that no piece is like another one of a power of two's length.
        private static let noise: [UInt8] = {
            var random = SeededGenerator(seed: 65521)
            let period = (0..<65521).map { _ in UInt8.random(in: 0...255, using: &random) }
            return (0..<20).flatMap { _ in period }
        }()

        private func bytes(_ offset: Int, _ count: Int) -> ArraySlice<UInt8> {
            let start = (offset + pattern) % 65521
            return Self.noise[start..<start + count]
        }

        /// The next bytes to send, up to so many.
        func next(_ count: Int) -> [UInt8] { Array(bytes(sent, count)) }

        /// Whether these are the next bytes; they count as received then.
        mutating func take(_ bytes: [UInt8]) -> Bool {
            let isRight = Array(self.bytes(received, bytes.count)) == bytes
            received += bytes.count
            return isRight && received <= total
        }
    }

    /// One connection, as both ends see it.
    private final class Pair {
        let socket: FileDescriptor
        let key: VsockKey
        var toHost: Flow
        var toGuest: Flow
        /// The guest's buffer, which it empties now and then, and what it knows of the device's.
        let window: UInt32
        var forwarded: UInt32 = 0
        var deviceWindow: UInt32 = VsockTable.largeWindow
        var deviceForwarded: UInt32 = 0
        var isHostReading = true
        var isOver = false

        init(
            _ socket: FileDescriptor, _ key: VsockKey, number: Int, window: UInt32,
            _ random: inout SeededGenerator
        ) {
            self.socket = socket
            self.key = key
            self.window = window
            toHost = Flow(pattern: number * 31, total: Int.random(in: 0...700_000, using: &random))
            toGuest = Flow(pattern: number * 57, total: Int.random(in: 0...60_000, using: &random))
        }

        var isDone: Bool { toHost.isEndSeen && toGuest.isEndSeen }
    }

    private let guest: VsockGuest
    private var pairs: [Pair] = []
    private var random: SeededGenerator

    init() throws {
        guest = try VsockGuest(buffers: 24, bufferSize: 1500)
        random = SeededGenerator(seed: 0)
    }

    @Test(
        "every byte arrives once and in order",
        arguments: [1, 2, 3, UInt64.random(in: 4 ... .max)])
    mutating func traffic(seed: UInt64) throws {
        random = SeededGenerator(seed: seed)
        try connect()
        var rounds = 0
        while !pairs.allSatisfy(\.isDone), rounds < 40_000 {
            rounds += 1
            let pair = pairs[Int.random(in: pairs.indices, using: &random)]
            try step(pair)
            try takePackets(seed)
        }
        let isDone = pairs.allSatisfy(\.isDone)
        #expect(isDone, "seed \(seed): it came to an end in \(rounds) rounds")
        for pair in pairs {
            #expect(pair.toHost.received == pair.toHost.total, "seed \(seed)")
            #expect(pair.toGuest.received == pair.toGuest.total, "seed \(seed)")
            try guest.send(VsockHeader.Operation.shutdown, pair.key, flags: 3)
        }
        _ = try guest.take()
        #expect(guest.device.table.count == 0, "seed \(seed): nothing is left")
    }

    private mutating func connect() throws {
        let listener = try guest.listen(80)
        for number in 0..<12 {
            let window = [500, 4000, 65536, 1 << 20].randomElement(using: &random) ?? 64
            if number.isMultiple(of: 2) {
                let (socket, key) = try guest.accept(UInt32(number), window: UInt32(window))
                pairs.append(
                    Pair(socket, key, number: number, window: UInt32(window), &random))
            } else {
                let key = VsockKey(hostPort: 80, guestPort: UInt32(number))
                let socket = try guest.connect(listener, key, window: UInt32(window))
                pairs.append(
                    Pair(socket, key, number: number, window: UInt32(window), &random))
            }
        }
        listener.removeFile()
    }

    private mutating func step(_ pair: Pair) throws {
        switch Int.random(in: 0..<5, using: &random) {
        case 0: hostSends(pair)
        case 1: try guestSends(pair)
        case 2:
            if Int.random(in: 0..<10, using: &random) == 0 { pair.isHostReading.toggle() }
            if pair.isHostReading { hostReads(pair) }
        case 3: try guestReads(pair)
        default: hostReads(pair)
        }
    }

    private mutating func hostSends(_ pair: Pair) {
        let rest = pair.toGuest.total - pair.toGuest.sent
        if rest == 0 {
            if !pair.toGuest.isEndSent { pair.socket.shutDown(.sending) }
            pair.toGuest.isEndSent = true
            return
        }
        let bytes = pair.toGuest.next(min(rest, Int.random(in: 1...40000, using: &random)))
        if case .moved(let count) = pair.socket.send(bytes, 0..<bytes.count) {
            pair.toGuest.sent += count
        }
    }

    private func hostReads(_ pair: Pair) {
        guard let bytes = pair.socket.arrived() else {
            pair.toHost.isEndSeen = true
            return
        }
        let isRight = pair.toHost.take(bytes)
        #expect(isRight, "the host reads what the guest sent")
    }

    private mutating func guestSends(_ pair: Pair) throws {
        let rest = pair.toHost.total - pair.toHost.sent
        if rest == 0 {
            if !pair.toHost.isEndSent {
                try send(pair, VsockHeader.Operation.shutdown, flags: 2)
            }
            pair.toHost.isEndSent = true
            return
        }
        let inFlight = UInt32(pair.toHost.sent) &- pair.deviceForwarded
        let room = Int(pair.deviceWindow &- inFlight)
        let count = min(rest, room, Int.random(in: 1...65536, using: &random))
        guard count > 0 else { return }
        let bytes = pair.toHost.next(count)
        pair.toHost.sent += count
        try send(pair, VsockHeader.Operation.data, bytes)
    }

    /// The guest's program takes what has come, and tells.
    private func guestReads(_ pair: Pair) throws {
        guard pair.forwarded != UInt32(pair.toGuest.received) else { return }
        pair.forwarded = UInt32(pair.toGuest.received)
        try send(pair, VsockHeader.Operation.creditUpdate)
    }

    private func send(
        _ pair: Pair, _ operation: UInt16, _ payload: [UInt8] = [], flags: UInt32 = 0
    ) throws {
        try guest.send(
            operation, pair.key, payload, flags: flags, window: pair.window,
            forwarded: pair.forwarded)
    }

    private func takePackets(_ seed: UInt64) throws {
        for packet in try guest.take() {
            let header = packet.header
            guard
                let pair = pairs.first(where: {
                    $0.key.guestPort == header.destinationPort
                        && $0.key.hostPort == header.sourcePort
                })
            else { continue }
            pair.deviceWindow = header.window
            pair.deviceForwarded = header.forwarded
            #expect(header.operation != VsockHeader.Operation.reset, "seed \(seed)")
            if header.operation == VsockHeader.Operation.shutdown, header.flags & 2 != 0 {
                pair.toGuest.isEndSeen = true
            }
            let isRight = pair.toGuest.take(packet.payload)
            let isInside = UInt32(pair.toGuest.received) &- pair.forwarded <= pair.window
            #expect(isRight && isInside, "seed \(seed): the guest gets what the host sent")
        }
    }

    // MARK: hostile packets

    @Test("packets at random harm nobody", arguments: [1, 2, UInt64.random(in: 3 ... .max)])
    mutating func hostile(seed: UInt64) throws {
        random = SeededGenerator(seed: seed)
        let listener = try guest.listen(80)
        var sockets: [FileDescriptor] = []
        for _ in 0..<4000 {
            if sockets.count < 20, Int.random(in: 0..<10, using: &random) == 0 {
                sockets.append(try guest.client(saying: "CONNECT 5\nsome words"))
            }
            if let accepted = listener.accept() { sockets.append(accepted) }
            if sockets.count > 10 {
                sockets.remove(at: Int.random(in: sockets.indices, using: &random))
            }
            let header = randomHeader()
            let count = Int.random(in: 0...3000, using: &random)
            try guest.send(raw: header, Array(repeating: 7, count: count))
            _ = try guest.take()
            #expect(guest.device.table.count <= 1000, "seed \(seed)")
        }
        // It still works.
        let (client, key) = try guest.accept(77)
        try guest.send(VsockHeader.Operation.data, key, [1])
        #expect(client.arrived() == [1], "seed \(seed)")
    }

    private mutating func randomHeader() -> VsockHeader {
        func rarely() -> Bool { Int.random(in: 0..<20, using: &random) == 0 }
        let hostPort: UInt32 =
            Bool.random(using: &random)
            ? 80 : VirtIOVsock.firstHostPort + UInt32.random(in: 0..<40, using: &random)
        return VsockHeader(
            sourceCID: rarely() ? UInt64.random(in: 0...5, using: &random) : VsockGuest.cid,
            destinationCID: rarely() ? UInt64.random(in: 0...5, using: &random) : 2,
            sourcePort: UInt32.random(in: 0..<8, using: &random), destinationPort: hostPort,
            length: rarely() ? .random(in: 0 ... .max, using: &random) : .random(in: 0...3000),
            type: rarely() ? .random(in: 0...3, using: &random) : 1,
            operation: UInt16.random(in: 0...8, using: &random),
            flags: UInt32.random(in: 0...4, using: &random),
            window: rarely() ? .random(in: 0 ... .max, using: &random) : 4096,
            forwarded: rarely() ? .random(in: 0 ... .max, using: &random) : 0)
    }
}
