import VMMBase
import VMMHost

/// Frames over a Unix datagram socket, a frame a datagram (as QEMU's `-netdev dgram` has it). Each
/// side has a path of its own, and either may come first: what nobody receives is lost, as on a
/// wire without a far end. The link is always up.
package final class DatagramBackend: FrameBackend {
    /// How long a peer that is not there is left alone.
    private static let retryNanoseconds: UInt64 = 1_000_000_000
    /// Datagrams that are no frame, in a row, before others on the loop have their turn.
    private static let mostDropped = 64
    private static let headerByteCount = Int(TapInterface.headerByteCount)

    private let format: FrameFormat

    private let socket: UnixDatagramSocket
    private let peer: String
    private let clock: any HostClock
    private let loop: EventLoop
    private var isConnected = false
    private var lastTry: UInt64?
    private var outgoing: [UInt8] = []
    /// A virtio-net header, and room for a datagram that is a byte too long.
    private var incoming = [UInt8](repeating: 0, count: headerByteCount + FrameLength.most + 1)
    private var offloads: TapInterface.Offloads = []
    /// Frames that were lost on the way out, had no room in the guest's buffers, were none, or ask
    /// of the driver what it does not do.
    package let losses = FrameLosses()
    package var linkChanged: (() -> Void)?

    /// Receives at `localPath` and sends to `path`. `loop` is the device's.
    package init(
        path: String, localPath: String, format: FrameFormat = .plain, loop: EventLoop,
        clock: any HostClock
    ) throws(UnixListener.Failure) {
        self.format = format
        socket = try UnixDatagramSocket(path: localPath)
        self.loop = loop
        peer = path
        self.clock = clock
        reconnect()
    }

    package var descriptor: FileDescriptor? { socket.descriptor }
    package var offersOffloads: Bool { format == .offloads }

    package func setOffloads(_ offloads: TapInterface.Offloads) { self.offloads = offloads }

    /// A connected socket finds its peer without its path, and hears nobody else.
    private func reconnect() {
        let now = clock.monotonicNanoseconds()
        if let lastTry, now &- lastTry < Self.retryNanoseconds { return }
        lastTry = now
        isConnected = (try? UnixSocket.connect(socket.descriptor, to: peer)) != nil
    }

    package func send(_ frame: GuestVector) -> Bool {
        sendOrDrop(frame)
        return true
    }

    private func sendOrDrop(_ frame: GuestVector) {
        frame.removeFirst(Self.headerByteCount - format.headerByteCount)
        guard format.lengths.contains(Int(clamping: frame.byteCount)) else { return drop() }
        if !isConnected { reconnect() }
        guard isConnected else { return drop() }
        outgoing.removeAll(keepingCapacity: true)
        frame.copyOut(into: &outgoing)
        switch socket.descriptor.send(outgoing, 0..<outgoing.count) {
        case .moved: return
        case .wouldBlock: drop()
        case .endOfFile, .failed:
            // The peer's socket is gone; another one may have taken its place.
            isConnected = false
            drop()
        }
    }

    package func receive(into room: GuestVector) -> Int? {
        let start = Self.headerByteCount - format.headerByteCount
        for _ in 0..<Self.mostDropped {
            switch socket.descriptor.receive(into: &incoming, start..<incoming.count) {
            case .moved(let count) where format.lengths.contains(count):
                let whole = 0..<start + count
                let verdict = OffloadHeader.judge(
                    whole, of: &incoming, format, accepting: offloads)
                if verdict == .sound, room.byteCount >= UInt64(whole.count) {
                    let bytes = incoming
                    return room.copyIn(bytes.span.extracting(whole))
                }
                drop()
            case .moved, .endOfFile: drop()
            case .wouldBlock, .failed: return nil
            }
        }
        // What is left is an event again.
        loop.change(socket.descriptor, to: [.readable, .edgeTriggered])
        return nil
    }

    package func finish() { socket.removeFile() }

    private func drop() { losses.add() }
}
