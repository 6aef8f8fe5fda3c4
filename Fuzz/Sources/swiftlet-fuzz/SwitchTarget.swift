import VMMHost
import VMMNetwork
import VMMTestSupport

/// The input is whether frames have headers, and what the peers of a switch's ports send: a port's
/// number, a count, and so many bytes of its stream, again and again. What comes out must be whole frames, no port may get its
/// own back, and the counters must say what came out.
enum SwitchTarget: FuzzTarget {
    static let name = "switch"
    private static let portCount = 4

    static let words: [[UInt8]] = [
        [0, 0, 0, 14], [0, 0, 0, 60], [0, 0, 0, 13], [0, 1, 0, 17], [0, 1, 0, 18],
        [0, 0, 0, 26], [0, 0, 0, 25], [0, 1, 0, 29], [0, 1, 0, 30],
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff], [2, 0, 0, 0, 0, 1], [1, 0x80, 0xc2, 0, 0, 0xe],
    ]

    static func seeds() -> [[UInt8]] {
        let addresses: [[UInt8]] = [
            [2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [255, 255, 255, 255, 255, 255],
        ]
        return [0, 12].flatMap { headerByteCount in
            addresses.map { destination in
                [headerByteCount]
                    + (0..<6).flatMap { step -> [UInt8] in
                        let header = [UInt8](repeating: 0, count: Int(headerByteCount))
                        let frame = destination + addresses[step % 2] + [8, 0, UInt8(step)]
                        return [UInt8(step % portCount), 19 + headerByteCount, 0, 0, 0]
                            + [15 + headerByteCount] + header + frame
                    }
            }
        }
    }

    static func run(_ input: FuzzInput) {
        do {
            try runSwitch(input)
        } catch {
            preconditionFailure(
                "what the switch sends is no stream of frames, or it cannot be run: \(error)")
        }
    }

    private static func runSwitch(_ input: FuzzInput) throws {
        var input = input
        let format: FrameFormat = input.next(UInt8.self) == 0 ? .plain : .offloads
        let loop = try EventLoop()
        let frames = try FrameSwitch(format, loop: loop, clock: ManualClock())
        let peers = try (0..<portCount).map { _ in
            let (near, far) = try UnixSocket.streamPair()
            frames.add(near)
            return far
        }
        var outputs = peers.map { _ in FrameReader(format) }
        var received = peers.map { _ in 0 as UInt64 }
        while !input.isEmpty {
            let port = Int(input.next(UInt8.self)) % portCount
            let bytes = input.take(Int(input.next(UInt8.self)))
            if !bytes.isEmpty { _ = peers[port].send(bytes, 0..<bytes.count) }
            loop.post { loop.stop() }
            try loop.run()
            for (number, peer) in peers.enumerated() {
                repeat {
                    while try outputs[number].next() != nil { received[number] += 1 }
                } while outputs[number].fill(from: peer) != .wouldBlock
                    && frames.counters.contains { $0.port == number }
            }
        }
        for (port, counters) in frames.counters {
            precondition(counters.sentFrames == received[port], "port \(port) lost frames")
        }
    }
}
