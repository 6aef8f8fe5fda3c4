import VMMBase
import VMMDevices
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// The input is what a driver and programs of the host do with a socket device: packets, right
/// and wrong ones, buffers, clients that say something, read or leave.
enum VsockTarget: FuzzTarget {
    static let name = "vsock"

    static let words = [Array("CONNECT 1\n".utf8)] + (1...7).map { FuzzInput.bytes(UInt16($0)) }

    private enum Step: UInt8, CaseIterable {
        case packet, bytes, buffer, client, say, read, leave, listen, accept, reset
    }

    private static let stepLimit = 96
    /// Several fuzzers may run at once.
    private static let identity = UInt64.random(in: 0 ... .max)
    private static let guest: UInt64 = 3
    private static let receive = 0
    private static let transmit = 1
    /// Where packets lie, above the queues and below the buffers for receiving.
    private static let outgoing = GuestAddress(1 << 20)
    private static let incoming: UInt64 = 2 << 20
    private static let firstHostPort: UInt32 = 1 << 30

    static func seeds() -> [[UInt8]] {
        let toGuest: [UInt8] =
            [Step.buffer.rawValue, Step.client.rawValue, Step.say.rawValue, 0, 10]
            + Array("CONNECT 1\n".utf8)
        let toHost: [UInt8] = [Step.buffer.rawValue, Step.listen.rawValue]
        return [
            toGuest + packet(2, isToClient: true) + packet(5, isToClient: true)
                + packet(4, isToClient: true),
            toHost + packet(1) + packet(5) + [Step.accept.rawValue] + packet(7) + packet(4),
        ]
    }

    private static func packet(_ operation: UInt8, isToClient: Bool = false) -> [UInt8] {
        [Step.packet.rawValue, operation, isToClient ? 1 : 0, 1, 3] + FuzzInput.bytes(UInt32(16))
            + FuzzInput.bytes(UInt32(1000)) + FuzzInput.bytes(UInt32(0))
            + FuzzInput.bytes(UInt16(16))
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let path = "/tmp/swiftlet-fuzz-\(identity)"
        do {
            let listener = try UnixListener(path: path, backlog: 64, isPrivate: true)
            let device = try VirtIOVsock(
                id: "fuzz", guest: guest, listener: listener, clock: SystemClock(), limit: 16)
            defer {
                device.quiesce()
                device.finish()
            }
            var driver = Driver(try FakeDriver(device), path: path)
            defer { driver.server?.removeFile() }
            for _ in 0..<stepLimit where !input.isEmpty { try driver.step(&input) }
        } catch {
            // The first fault is the end of a device until its reset.
            return
        }
    }

    private struct Driver {
        let driver: FakeDriver
        let path: String
        var clients: [FileDescriptor] = []
        var server: UnixListener?
        private var nextBuffer: UInt16 = 0

        init(_ driver: FakeDriver, path: String) {
            self.driver = driver
            self.path = path
        }

        mutating func step(_ input: inout FuzzInput) throws {
            switch Step.allCases[Int(input.next(UInt8.self)) % Step.allCases.count] {
            case .packet: try send(packet(&input))
            case .bytes: try send(input.take(Int(input.next(UInt8.self))))
            case .buffer: try offer(&input)
            case .client where clients.count < 24:
                clients.append(try UnixListener.connect(to: path))
            case .say:
                let words = Int(input.next(UInt8.self))
                let bytes = input.take(Int(input.next(UInt8.self)))
                guard !clients.isEmpty, !bytes.isEmpty else { break }
                _ = clients[words % clients.count].send(bytes, 0..<bytes.count)
            case .read:
                var bytes: [UInt8] = []
                for client in clients {
                    _ = client.receive(into: &bytes, limit: 4096, isPeek: false)
                }
            case .leave:
                let index = Int(input.next(UInt8.self))
                if !clients.isEmpty { clients.remove(at: index % clients.count) }
            case .listen where server == nil:
                server = try UnixListener(path: path + "_1")
            case .accept: clients += (server?.accept()).map { [$0] } ?? []
            case .reset:
                driver.device.quiesce()
                try driver.activate()
                nextBuffer = 0
            case .client, .listen: break
            }
            try driver.settle()
        }

        /// Right but for what the input chooses.
        private func packet(_ input: inout FuzzInput) -> [UInt8] {
            let operation = UInt16(input.next(UInt8.self))
            let flags = input.next(UInt8.self)
            let port = UInt32(input.next(UInt8.self) & 7)
            let shutdown = UInt32(input.next(UInt8.self))
            var bytes = ByteBuilder()
            bytes.append(VsockTarget.guest)
            bytes.append(flags & 2 == 0 ? UInt64(2) : 3)
            bytes.append(port)
            bytes.append(flags & 1 == 0 ? UInt32(1) : firstHostPort + UInt32(flags >> 4))
            bytes.append(input.next(UInt32.self))
            bytes.append(flags & 4 == 0 ? UInt16(1) : 2)
            bytes.append(operation)
            bytes.append(shutdown)
            bytes.append(input.next(UInt32.self))
            bytes.append(input.next(UInt32.self))
            let count = Int(input.next(UInt16.self))
            bytes.append(bytes: Array(repeating: 7, count: count))
            return bytes.bytes
        }

        private func send(_ bytes: [UInt8]) throws {
            _ = driver.memory.copyIn(bytes, at: outgoing)
            let queue = driver.queues[transmit]
            queue.recycle()
            queue.add([FakeQueue.Buffer(outgoing, UInt32(bytes.count), isWritable: false)])
            try driver.ring(transmit)
        }

        private mutating func offer(_ input: inout FuzzInput) throws {
            let queue = driver.queues[receive]
            let count = [UInt32(4096), 64, 1500, 128][Int(input.next(UInt8.self)) % 4]
            for _ in 0..<8 {
                queue.write(
                    FakeQueue.Descriptor(
                        address: incoming + UInt64(nextBuffer) * 4096, count: count,
                        flags: FakeQueue.Descriptor.isWritable),
                    at: nextBuffer)
                queue.offer(nextBuffer)
                nextBuffer = (nextBuffer + 1) % 256
            }
            try driver.ring(receive)
        }
    }
}
