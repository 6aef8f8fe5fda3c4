import VMMBase
import VMMHost
import VMMNetwork

/// A wire with a measured end, which is the device's, and a far end, which is ours.
protocol Wire {
    var backend: any FrameBackend { get }
    /// What the device has asked of the kernel so far; nil when nobody counts it.
    var systemCalls: Int? { get }
    /// Puts frames of so many bytes, with the virtio header, where the device finds them.
    func put(_ count: Int, byteCount: Int)
    /// Takes what the device sent off the wire.
    func drain()
}

/// What a tap does, by a pair of datagram sockets: a `readv` or `writev` for each frame, header
/// included.
final class DatagramWire: Wire {
    private final class Backend: FrameBackend {
        let socket: UnixDatagramSocket
        var calls = 0
        var descriptor: FileDescriptor? { socket.descriptor }

        init(_ socket: UnixDatagramSocket) { self.socket = socket }

        func send(_ frame: GuestVector) -> Bool {
            calls += 1
            _ = socket.descriptor.write(frame)
            return true
        }

        func receive(into room: GuestVector) -> Int? {
            calls += 1
            guard case .moved(let count) = socket.descriptor.read(into: room) else { return nil }
            return count
        }
    }

    private let near: Backend
    private let far: UnixDatagramSocket
    private var bytes = [UInt8](repeating: 0, count: 1 << 17)

    init() throws {
        let paths = ["near", "far"].map { "/tmp/network-benchmark.\($0)" }
        near = Backend(try UnixDatagramSocket(path: paths[0]))
        far = try UnixDatagramSocket(path: paths[1])
        try UnixSocket.connect(near.socket.descriptor, to: paths[1])
        try UnixSocket.connect(far.descriptor, to: paths[0])
    }

    var backend: any FrameBackend { near }
    var systemCalls: Int? { near.calls }

    func put(_ count: Int, byteCount: Int) {
        for _ in 0..<count { _ = far.descriptor.send(bytes, 0..<byteCount) }
    }

    func drain() {
        while case .moved = far.descriptor.receive(into: &bytes, 0..<bytes.count) {}
    }
}

/// What guests have among each other: a stream, with lengths before the frames.
final class StreamWire: Wire {
    let backend: any FrameBackend
    let systemCalls: Int? = nil
    private let far: FileDescriptor
    private var bytes = [UInt8](repeating: 0, count: 1 << 18)
    private var frames: [UInt8] = []

    init() throws {
        let ends = try UnixSocket.streamPair()
        far = ends.1
        backend = try SocketBackend(
            name: "wire", origin: .server(path: "/nobody"), connection: ends.0,
            loop: EventLoop(), clock: SystemClock())
        try backend.attach()
    }

    func put(_ count: Int, byteCount: Int) {
        // The same ones each time.
        if frames.isEmpty {
            frames = Stream.frames(
                count, byteCount: byteCount - Int(TapInterface.headerByteCount))
        }
        _ = far.send(frames, 0..<frames.count)
    }

    func drain() {
        while case .moved = far.receiveStream(into: &bytes, 0..<bytes.count) {}
    }
}

/// Frames behind their lengths.
enum Stream {
    /// From one address to another, of so many bytes.
    static func frames(
        _ count: Int, byteCount: Int, to destination: UInt8 = 2, from source: UInt8 = 4
    ) -> [UInt8] {
        var frame = [UInt8](repeating: 0, count: byteCount)
        frame[0] = 2
        frame[5] = destination
        frame[6] = 2
        frame[11] = source
        let length = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: byteCount >> $0) }
        return Array(repeatElement(length + frame, count: count).joined())
    }
}
