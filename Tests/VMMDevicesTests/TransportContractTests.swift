import Foundation
import Testing
import VMMBase
import VMMHost
import VMMNetwork
import VMMStorage
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

/// Every kind of virtio device.
enum DeviceKind: CaseIterable, Sendable {
    case block, network, console, entropy, vsock, watchdog

    func make(_ directory: TemporaryDirectory) throws -> any VirtIODevice {
        switch self {
        case .block:
            let path = directory.file("disk")
            try Data(count: 65536).write(to: URL(filePath: path))
            return VirtIOBlock(
                id: "_disk0", disk: try Disk(path: path, DiskOptions()), queueSizes: [128, 64],
                serial: nil, clock: ManualClock())
        case .network:
            return VirtIONetwork(
                id: "_net0", backends: [DeadWire(), DeadWire()],
                VirtIONetwork.Parameters(
                    mac: try #require(MACAddress("02:11:22:33:44:55")),
                    offloads: NetworkOffloads(checksum: true, tcp: true, udp: true),
                    queueSize: 256))
        case .console:
            let channel = RecordingChannel()
            let device = try VirtIOConsole(id: "_console0", channel: channel)
            try device.startChannel(on: EventLoop())
            channel.deliver([1, 2, 3])
            return device
        case .entropy: return try VirtIOEntropy(id: "_rng")
        case .watchdog: return try VirtIOWatchdog(id: "__watchdog", clock: ManualClock()) {}
        case .vsock:
            return try VirtIOVsock(
                id: "_vsock0", guest: 3, listener: UnixListener(path: directory.file("v")),
                clock: ManualClock(), limit: 16)
        }
    }
}

private final class DeadWire: FrameBackend {
    var descriptor: FileDescriptor? { nil }
    func send(_ frame: GuestVector) -> Bool { true }
    func receive(into room: GuestVector) -> Int? { nil }
    func setOffloads(_ offloads: TapInterface.Offloads) {}
}

@Suite("Every device on every transport")
struct TransportContractTests {
    private static let rings = [0, Feature.packedRing]

    private func withRig(
        _ kind: DeviceKind, _ transport: TransportRig.Kind, _ ring: UInt64,
        _ body: (TransportRig) throws -> Void
    ) throws {
        let directory = try TemporaryDirectory()
        let device = try kind.make(directory)
        let rig = try TransportRig(device, transport, features: Feature.ring | ring)
        defer { rig.end() }
        try body(rig)
    }

    @Test(
        "1000 random things that a driver does leave a device that works after a reset",
        arguments: DeviceKind.allCases, TransportRig.Kind.allCases)
    func attack(kind: DeviceKind, transport: TransportRig.Kind) throws {
        for ring in Self.rings {
            let seed = RandomSeed.make()
            print("attack on \(kind), \(transport), ring \(ring): seed \(seed)")
            try withRig(kind, transport, ring) { rig in
                var attack = TransportAttack(rig, seed: seed)
                let violations = attack.run(steps: 1000)
                #expect(violations == [], "seed \(seed)")
            }
        }
    }

    @Test(
        "queues of any size that their format allows are taken, up to the device's largest",
        arguments: DeviceKind.allCases, TransportRig.Kind.allCases)
    func sizes(kind: DeviceKind, transport: TransportRig.Kind) throws {
        let sizes: [[UInt16]] = [[1, 2, 16, 64], [1, 2, 3, 7, 33, 64]]
        for (ring, sizes) in zip(Self.rings, sizes) {
            try withRig(kind, transport, ring) { rig in
                for size in sizes {
                    rig.reset()
                    rig.start(rig.features, size: size)
                    for queue in 0..<rig.queueCount { rig.ring(queue) }
                    rig.settle()
                    #expect(rig.status == 15, "size \(size)")
                }
            }
        }
    }

    /// The bytes that a queue's requests got since the last call.
    private func request(_ queue: FakeQueue, _ rig: TransportRig) -> [UInt32] {
        queue.add([FakeQueue.Buffer(GuestAddress(TransportRig.buffers), 64, isWritable: true)])
        queue.publish()
        rig.ring(0)
        rig.settle()
        return queue.takeUsed().map(\.written)
    }

    @Test(
        "a queue that was reset takes no requests until it is back, and then from its start",
        arguments: TransportRig.Kind.allCases, rings)
    func queueReset(transport: TransportRig.Kind, ring: UInt64) throws {
        try withRig(.entropy, transport, ring) { rig in
            rig.start(rig.features)
            let queue = try rig.queue(0)
            let before = [request(queue, rig), request(queue, rig)]

            rig.resetQueue(0)
            let gone = rig.resetState(0)
            let without = request(queue, rig)
            rig.reviveQueue(0, size: 8)
            let back = rig.resetState(0)
            let after = request(try rig.queue(0), rig)

            #expect(before == [[64], [64]] && without == [] && after == [64])
            #expect(gone == (0, 0) && back == (0, 1))
            #expect(rig.status == 15)
        }
    }

    @Test(
        "without the feature a queue is not reset, and one that was never enabled stays away",
        arguments: TransportRig.Kind.allCases)
    func noQueueReset(transport: TransportRig.Kind) throws {
        try withRig(.entropy, transport, 0) { rig in
            rig.start(rig.features & ~Feature.queueReset)
            rig.resetQueue(0)
            let state = rig.resetState(0)
            let answers = request(try rig.queue(0), rig)
            #expect(state == (0, 1) && answers == [64])
        }
    }

    @Test(
        "a feature that was not offered is refused, and a reset heals it",
        arguments: DeviceKind.allCases, TransportRig.Kind.allCases)
    func features(kind: DeviceKind, transport: TransportRig.Kind) throws {
        try withRig(kind, transport, 0) { rig in
            // Bit 63 is nobody's.
            rig.start(rig.features | 1 << 63)
            #expect(rig.status == 7)
            #expect(rig.revival() == [])
        }
    }
}
