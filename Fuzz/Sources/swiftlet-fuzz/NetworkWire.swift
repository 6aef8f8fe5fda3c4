import Glibc
import Synchronization
import VMMHost
import VMMNetwork

/// The far end of a network device's wires, and the backends at the near end.
final class NetworkWire: Sendable {
    enum Kind: CaseIterable {
        /// As a tap: frames with their header, of any length, on two pairs of queues.
        case tap
        case stream
        case datagram
        /// Each frame behind a virtio-net header.
        case streamWithHeaders
        case datagramWithHeaders

        var hasRecords: Bool { self == .stream || self == .streamWithHeaders }

        var format: FrameFormat {
            self == .streamWithHeaders || self == .datagramWithHeaders ? .offloads : .plain
        }
    }

    private struct Failure: Error {}

    private struct FarEnds {
        /// The last one is alone in use.
        var sockets: [FileDescriptor] = []
        /// One that has a name.
        var named: UnixDatagramSocket?
        var nearEnds: [FileDescriptor] = []
        var wasCut = false
    }

    /// Several fuzzers may run at once.
    private static let path = "/tmp/swiftlet-fuzz-net-\(UInt64.random(in: 0 ... .max))"
    private static let farPath = path + "-far"
    private static let readLimit = 1 << 20

    private let kind: Kind
    private let ends = Mutex(FarEnds())

    init(_ kind: Kind) throws {
        self.kind = kind
        guard kind == .tap else { return }
        for _ in 0..<2 {
            let (near, far) = try Self.datagramPair()
            ends.withLock { ends in
                ends.nearEnds.append(near)
                ends.sockets.insert(far, at: 0)
            }
        }
    }

    private static func datagramPair() throws -> (FileDescriptor, FileDescriptor) {
        var ends: [Int32] = [-1, -1]
        let flags = SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
        // SAFETY: the kernel writes two numbers into an array of two.
        guard unsafe socketpair(AF_UNIX, Int32(flags), 0, &ends) == 0 else { throw Failure() }
        return (FileDescriptor(owning: ends[0]), FileDescriptor(owning: ends[1]))
    }

    /// The near ends, with the far ones in place. On the device's loop.
    func backends(_ loop: EventLoop) throws -> [any FrameBackend] {
        switch kind {
        case .tap:
            let near = ends.withLock { $0.nearEnds }
            return near.map { RawWire($0) }
        case .stream, .streamWithHeaders:
            let listener = try UnixListener(path: Self.path)
            let backend = try SocketBackend(
                name: "fuzz", origin: .listener(listener), format: kind.format, loop: loop,
                clock: SystemClock())
            try backend.attach()
            try come()
            return [backend]
        case .datagram, .datagramWithHeaders:
            try come()
            let backend = try DatagramBackend(
                path: Self.farPath, localPath: Self.path, format: kind.format, loop: loop,
                clock: SystemClock())
            try ends.withLock { ends in
                if let far = ends.sockets.last { try UnixSocket.connect(far, to: Self.path) }
            }
            return [backend]
        }
    }

    // MARK: the far end

    /// Nobody left it, so that what is sent must arrive.
    var isWhole: Bool { kind == .tap && ends.withLock { !$0.wasCut } }

    func leave() {
        ends.withLock { ends in
            ends.sockets = []
            ends.named = nil
            ends.wasCut = true
        }
    }

    /// A far end where there is none.
    func come() throws {
        try ends.withLock { ends in
            guard ends.sockets.isEmpty else { return }
            switch kind {
            case .tap: break
            case .stream, .streamWithHeaders:
                // Refused while too many wait.
                ends.sockets = (try? UnixSocket.connectStream(to: Self.path)).map { [$0] } ?? []
            case .datagram, .datagramWithHeaders:
                let far = try UnixDatagramSocket(path: Self.farPath)
                ends.named = far
                ends.sockets = [far.descriptor]
                // Not there yet at the beginning.
                try? UnixSocket.connect(far.descriptor, to: Self.path)
            }
        }
    }

    /// Bytes as they are; what finds no room is lost. A tap has no empty frames.
    func send(_ bytes: [UInt8]) {
        if kind == .tap, bytes.isEmpty { return }
        ends.withLock { ends in
            if let far = ends.sockets.last { _ = far.send(bytes, 0..<bytes.count) }
        }
    }

    /// A frame as the wire's kind has it.
    func sendFrame(_ bytes: [UInt8]) {
        let length = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: bytes.count >> $0) }
        send(kind.hasRecords ? length + bytes : bytes)
    }

    /// Reads what there is, up to a limit; returns the number of reads.
    @discardableResult
    func readAll() -> Int {
        ends.withLock { ends in
            var bytes = [UInt8](repeating: 0, count: 1 << 17)
            var count = 0
            for far in ends.sockets {
                while count < Self.readLimit >> 10,
                    case .moved = far.receive(into: &bytes, 0..<bytes.count)
                {
                    count += 1
                }
            }
            return count
        }
    }
}

/// Frames as a tap has them: header first, and cut where the room ends.
private final class RawWire: FrameBackend {
    private let near: FileDescriptor

    init(_ near: FileDescriptor) {
        self.near = near
    }

    var descriptor: FileDescriptor? { near }

    func send(_ frame: GuestVector) -> Bool {
        _ = near.write(frame)
        return true
    }

    func receive(into room: GuestVector) -> Int? {
        guard case .moved(let count) = near.read(into: room) else { return nil }
        return count
    }
}
