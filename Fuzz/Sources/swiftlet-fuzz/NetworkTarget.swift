import VMMBase
import VMMDevices
import VMMHost
import VMMNetwork
import VMMTestSupport
import VMMVirtIO

/// The input is what a driver does with a network device on a real transport (registers, requests
/// on all of its queues, memory, resets of one queue and of all), and what comes over its wires:
/// frames of any length, bytes that are no frame, a far end that does not read, leaves or comes
/// back. Afterwards the device must work: its queues, and over a wire that is whole a frame each
/// way.
enum NetworkTarget: FuzzTarget {
    static let name = "net"

    private enum Step: UInt8, CaseIterable {
        case start, request, ring, memory, resetQueue, reviveQueue, status, write
        case arrive, bytes, read, leave, come, settle
    }

    private static let stepLimit = 128
    private static let queueSize: UInt16 = 64
    /// Sizes of queues in which a driver's rings lie in their own pages; the last is too large for
    /// the device.
    private static let queueSizes: [UInt16?] = [nil, nil, 1, 2, 3, 16, 32, 256]
    private static let bufferSizes: [UInt32] = [0, 1, 12, 14, 72, 1526, 4096, 65562]
    /// Where one buffer begins behind the other.
    private static let bufferStep: UInt64 = 0x1_1000

    /// Feature bits (VirtIO 1.3, 5.1.3): checksum, offloads by control, segments to the guest,
    /// mergeable buffers, control, announcing; several pairs of queues.
    private static let offloads: UInt64 = 1 << 1 | 1 << 2 | 1 << 7 | 1 << 8
    private static let queues: UInt64 = 1 << 15 | 1 << 17 | 1 << 21
    private static let pairs: UInt64 = 1 << 22

    static let words: [[UInt8]] = [
        [0, 0, 0, 14], [0, 0, 0, 60], [0, 1, 0, 17],
        // Headers: a checksum, and TCP's segments.
        [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], [1, 1, 54, 0, 168, 5, 34, 0, 16, 0, 0, 0],
        [4, 0, 2, 0], [5, 0], [1, 0], [3, 0],
    ]

    // MARK: seeds

    static func seeds() -> [[UInt8]] {
        // A buffer of the size with this index, readable or writable, and with these bytes.
        func request(_ queue: UInt8, _ buffers: [(UInt8, Bool, [UInt8])]) -> [UInt8] {
            [Step.request.rawValue, queue, UInt8(buffers.count - 1)]
                + buffers.flatMap { size, isWritable, bytes -> [UInt8] in
                    [size << 1 | (isWritable ? 1 : 0), UInt8(bytes.count)] + bytes
                }
        }
        let receive = request(0, [(7, true, [])])
        let scene: [[UInt8]] = [
            [Step.start.rawValue, 3, 0], receive,
            request(1, [(2, false, []), (5, false, [])]), request(1, [(4, false, [])]),
            // The control queue, behind two pairs or one.
            request(4, [(3, false, [4, 0, 2, 0]), (1, true, [])]),
            request(2, [(3, false, [4, 0, 2, 0]), (1, true, [])]),
            // 100 bytes that begin with two of ours.
            [Step.arrive.rawValue, 100, 0, 2, 1, 2], receive,
            [Step.resetQueue.rawValue, 0, Step.reviveQueue.rawValue, 0, 5], receive,
            [Step.read.rawValue, Step.leave.rawValue, Step.settle.rawValue, Step.come.rawValue],
            request(1, [(4, false, [])]),
        ]
        // Both formats, both transports, each kind of wire.
        return (0..<4 * UInt8(NetworkWire.Kind.allCases.count)).map { flags in
            [flags] + scene.flatMap { $0 }
        }
    }

    // MARK: run

    static func run(_ input: FuzzInput) {
        var input = input
        let flags = input.next(UInt8.self)
        do {
            let kinds = NetworkWire.Kind.allCases
            let kind = kinds[Int(flags >> 2 & 0xf) % kinds.count]
            let wire = try NetworkWire(kind)
            let isLimited = flags & 0x40 != 0
            var features = Feature.ring | queues
            if flags & 1 != 0 { features |= Feature.packedRing }
            if kind == .tap { features |= pairs }
            let rig = try TransportRig(
                flags & 2 == 0 ? .pci : .mmio, features: features
            ) { loop in
                LoopBound(adopting: try device(try wire.backends(loop), isLimited: isLimited))
            }
            defer { rig.end() }
            var driver = Driver(rig, wire)
            for _ in 0..<stepLimit where !input.isEmpty { try driver.step(&input) }
            let violations = rig.revival()
            precondition(violations.isEmpty, "the device is broken: \(violations)")
            if !isLimited { try driver.exchangeFrames() }
        } catch {
            preconditionFailure("the device's surroundings failed: \(error)")
        }
    }

    private static func device(
        _ backends: [any FrameBackend], isLimited: Bool
    ) throws -> VirtIONetwork {
        guard let mac = MACAddress("02:11:22:33:44:55") else {
            throw HostError("use a MAC", code: 0)
        }
        var parameters = VirtIONetwork.Parameters(
            mac: mac, offloads: NetworkOffloads(checksum: true, tcp: true, udp: true),
            queueSize: queueSize)
        if isLimited {
            let bucket = RateLimiter.Bucket(size: 3, refillMilliseconds: 1)
            let limiter = RateLimiter(bytes: nil, operations: bucket, clock: SystemClock())
            parameters.receiveLimiter = limiter
            parameters.transmitLimiter = limiter
        }
        return VirtIONetwork(id: "fuzz", backends: backends, parameters)
    }

    private struct Driver {
        private let rig: TransportRig
        private let wire: NetworkWire
        private var queues: [FakeQueue] = []
        /// Descriptors that were handed out of each queue.
        private var handedOut: [Int] = []
        private var nextBuffer: UInt64 = 0

        init(_ rig: TransportRig, _ wire: NetworkWire) {
            self.rig = rig
            self.wire = wire
        }

        mutating func step(_ input: inout FuzzInput) throws {
            switch Step.allCases[Int(input.next(UInt8.self)) % Step.allCases.count] {
            case .start: try start(&input)
            case .request: request(&input)
            case .ring: rig.ring(Int(input.next(UInt8.self)))
            case .memory:
                let address = UInt64(input.next(UInt16.self))
                let bytes = input.take(Int(input.next(UInt8.self)))
                _ = rig.memory.copyIn(bytes, at: GuestAddress(address))
            case .resetQueue: rig.resetQueue(Int(input.next(UInt8.self)) % rig.queueCount)
            case .reviveQueue: try revive(&input)
            case .status: rig.setStatus(UInt64(input.next(UInt8.self)))
            case .write:
                let offset = UInt64(input.next(UInt16.self)) % rig.byteCount
                rig.write(
                    offset, AccessWidth.allCases[Int(input.next(UInt8.self)) % 4], input.next())
            case .arrive:
                let count = Int(input.next(UInt16.self))
                let start = input.take(Int(input.next(UInt8.self))).prefix(count)
                wire.sendFrame(start + Array(repeating: 0, count: count - start.count))
            case .bytes: wire.send(input.take(Int(input.next(UInt8.self))))
            case .read: wire.readAll()
            case .leave: wire.leave()
            case .come: try wire.come()
            case .settle: rig.settle()
            }
        }

        private mutating func start(_ input: inout FuzzInput) throws {
            let flags = input.next(UInt8.self)
            let size = queueSizes[Int(input.next(UInt8.self)) % queueSizes.count]
            var features = rig.features
            if flags & 1 == 0 { features &= ~NetworkTarget.queues }
            if flags & 2 != 0 { features |= NetworkTarget.offloads }
            if flags & 4 != 0 { features &= ~(1 << 15) }
            if flags & 8 != 0 { features &= ~NetworkTarget.pairs }
            if flags & 0x80 != 0 { features ^= input.next() }
            rig.reset()
            rig.clear(byteCount: 0x1_0000)
            rig.start(features, size: size)
            queues = try (0..<rig.queueCount).map { try rig.queue($0) }
            handedOut = queues.map { _ in 0 }
        }

        private mutating func revive(_ input: inout FuzzInput) throws {
            let index = Int(input.next(UInt8.self)) % rig.queueCount
            let size = queueSizes[Int(input.next(UInt8.self)) % queueSizes.count]
            guard queues.indices.contains(index) else { return }
            rig.reviveQueue(index, size: size ?? queueSize)
            queues[index] = try rig.queue(index)
            handedOut[index] = 0
        }

        /// Up to four buffers, as one request.
        private mutating func request(_ input: inout FuzzInput) {
            let index = Int(input.next(UInt8.self)) % rig.queueCount
            let buffers = (0...input.next(UInt8.self) % 4).map { _ in buffer(&input) }
            guard queues.indices.contains(index) else { return }
            let queue = queues[index]
            guard buffers.count <= Int(queue.layout.size) else { return }
            if handedOut[index] + buffers.count > Int(queue.layout.size) {
                queue.recycle()
                handedOut[index] = 0
            }
            handedOut[index] += buffers.count
            queue.add(buffers)
            queue.publish()
            rig.ring(index)
        }

        private mutating func buffer(_ input: inout FuzzInput) -> FakeQueue.Buffer {
            let shape = input.next(UInt8.self)
            let bytes = input.take(Int(input.next(UInt8.self)))
            let address = GuestAddress(TransportRig.buffers + nextBuffer * bufferStep)
            nextBuffer = (nextBuffer + 1) % 24
            _ = rig.memory.copyIn(bytes, at: address)
            return FakeQueue.Buffer(
                address, bufferSizes[Int(shape >> 1) % bufferSizes.count],
                isWritable: shape & 1 != 0)
        }

        /// A frame each way over a wire that was never cut.
        func exchangeFrames() throws {
            guard wire.isWhole else { return }
            wire.readAll()
            let frame = FakeQueue.Buffer(
                GuestAddress(TransportRig.buffers), 72, isWritable: false)
            let transmit = try rig.queue(1)
            transmit.add([frame])
            transmit.publish()
            rig.ring(1)
            rig.settle()
            let sentCount = wire.readAll()
            precondition(sentCount == 1, "a frame was lost on its way to the wire")
            let receive = try rig.queue(0)
            receive.add([
                FakeQueue.Buffer(GuestAddress(TransportRig.buffers), 4096, isWritable: true)
            ])
            receive.publish()
            rig.ring(0)
            wire.sendFrame(Array(repeating: 0, count: 72))
            rig.settle()
            let receivedCount = receive.takeUsed().count
            precondition(receivedCount == 1, "a frame was lost on its way in")
        }
    }
}
