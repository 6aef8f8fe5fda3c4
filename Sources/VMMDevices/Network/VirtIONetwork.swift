import VMMBase
import VMMHost
import VMMNetwork
import VMMVirtIO

/// Which work the guest and the host may leave to each other.
package struct NetworkOffloads: Equatable, Sendable {
    package var checksum: Bool
    package var tcp: Bool
    package var udp: Bool

    package init(checksum: Bool, tcp: Bool, udp: Bool) {
        self.checksum = checksum
        self.tcp = tcp
        self.udp = udp
    }
}

/// virtio-net (VirtIO 1.3, 5.1) with one pair of queues. Frames go between guest memory and the
/// backend without a copy of ours.
package final class VirtIONetwork: VirtIODevice {
    private enum FeatureBit {
        static let checksum: UInt64 = 1 << 0
        static let guestChecksum: UInt64 = 1 << 1
        static let mac: UInt64 = 1 << 5
        static let guestTCP4: UInt64 = 1 << 7
        static let guestTCP6: UInt64 = 1 << 8
        static let guestCongestion: UInt64 = 1 << 9
        static let guestUDP: UInt64 = 1 << 10
        static let hostTCP4: UInt64 = 1 << 11
        static let hostTCP6: UInt64 = 1 << 12
        static let hostCongestion: UInt64 = 1 << 13
        static let hostUDP: UInt64 = 1 << 14
        static let mergeableBuffers: UInt64 = 1 << 15
        static let status: UInt64 = 1 << 16
        static let guestLargeFrames = guestTCP4 | guestTCP6 | guestUDP
    }

    private static let receiveQueue = 0
    private static let transmitQueue = 1
    /// An Ethernet frame behind its header: what receive buffers must hold at least (5.1.6.3).
    private static let frameByteCount: UInt64 = 1514 + TapInterface.headerByteCount
    /// The largest segmented frame: 64 KiB of IP behind an Ethernet header.
    private static let largeFrameByteCount: UInt64 = 65550 + TapInterface.headerByteCount
    private static let linkUp: UInt16 = 1

    package let id: String
    package let deviceType = VirtIODeviceType.network
    package let queueSizes: [UInt16]
    package var configurationChanged: (() -> Void)?

    private let backend: any FrameBackend
    private let mac: MACAddress
    private let offloads: NetworkOffloads

    private var receive: VirtQueue?
    private var transmit: VirtQueue?
    private var transmitChain: DescriptorChain?
    /// Receive buffers taken from the queue and not filled yet.
    private var waiting = WaitingBuffers([])
    /// All waiting buffers as one list, for a frame that spans several.
    private var room: GuestVector?
    private var usesMergeableBuffers = false
    private var neededByteCount = frameByteCount

    package init(
        id: String, backend: any FrameBackend, mac: MACAddress, offloads: NetworkOffloads,
        queueSize: UInt16
    ) {
        self.id = id
        self.backend = backend
        self.mac = mac
        self.offloads = offloads
        queueSizes = [queueSize, queueSize]
    }

    package var offeredFeatures: UInt64 {
        var features = FeatureBit.mac | FeatureBit.status | FeatureBit.mergeableBuffers
        if offloads.checksum { features |= FeatureBit.checksum | FeatureBit.guestChecksum }
        if offloads.tcp {
            features |= FeatureBit.hostTCP4 | FeatureBit.hostTCP6 | FeatureBit.hostCongestion
            features |= FeatureBit.guestTCP4 | FeatureBit.guestTCP6 | FeatureBit.guestCongestion
        }
        if offloads.udp { features |= FeatureBit.hostUDP | FeatureBit.guestUDP }
        return features
    }

    package var configuration: [UInt8] {
        var bytes = ByteBuilder(mac.bytes)
        bytes.append(Self.linkUp)
        // Pairs of queues; there is one without the multiqueue feature.
        bytes.append(UInt16(1))
        return bytes.bytes
    }

    // MARK: life

    package func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        receive = queues[Self.receiveQueue]
        transmit = queues[Self.transmitQueue]
        transmitChain = try transmit?.makeChains(1).first
        usesMergeableBuffers = features & FeatureBit.mergeableBuffers != 0
        neededByteCount =
            features & FeatureBit.guestLargeFrames == 0
            ? Self.frameByteCount : Self.largeFrameByteCount
        if let receive {
            waiting = WaitingBuffers(
                try receive.makeChains(usesMergeableBuffers ? Int(receive.size) : 1))
            room = try GuestVectorArena(vectors: 1, capacity: 1024).makeVector()
        }
        var accepted: TapInterface.Offloads = []
        if features & FeatureBit.guestChecksum != 0 { accepted.insert(.checksum) }
        if features & FeatureBit.guestTCP4 != 0 { accepted.insert(.tcp4) }
        if features & FeatureBit.guestTCP6 != 0 { accepted.insert(.tcp6) }
        if features & FeatureBit.guestCongestion != 0 { accepted.insert(.congestion) }
        if features & FeatureBit.guestUDP != 0 { accepted.insert(.udp) }
        backend.setOffloads(accepted)
    }

    package func quiesce() {
        receive = nil
        transmit = nil
        transmitChain = nil
        waiting = WaitingBuffers([])
        room = nil
    }

    package func service(queue index: Int) throws(GuestFault) {
        if index == Self.transmitQueue { try sendAll() } else { try receiveAll() }
    }

    package var wakeSources: [FileDescriptor] {
        backend.descriptor.map { [$0] } ?? []
    }

    package func wake(source index: Int) throws(GuestFault) {
        try receiveAll()
    }

    // MARK: guest to host

    private func sendAll() throws(GuestFault) {
        guard let queue = transmit, let chain = transmitChain else { return }
        // A queue's worth of frames, then the loop's other devices have their turn.
        var budget = queue.size
        repeat {
            queue.suppressDoorbell()
            while budget > 0, try queue.pop(into: chain) {
                budget -= 1
                guard chain.readable.byteCount > TapInterface.headerByteCount else {
                    throw GuestFault("frame without a header", UInt64(chain.head))
                }
                backend.send(chain.readable)
                queue.push(chain, written: 0)
            }
        } while queue.armDoorbell() && budget > 0
        queue.notify()
        if budget == 0 { queue.serviceAgain() }
    }

    // MARK: host to guest

    private func receiveAll() throws(GuestFault) {
        guard let queue = receive, let room else { return }
        var budget = queue.size
        while budget > 0, try collectRoom(queue, room), let count = backend.receive(into: room) {
            budget -= 1
            deliver(count, queue)
        }
        queue.notify()
        if budget == 0 { queue.serviceAgain() }
    }

    /// Takes buffers until they hold the largest frame. False when the driver has not enough yet:
    /// it rings when it adds some.
    private func collectRoom(_ queue: VirtQueue, _ room: GuestVector) throws(GuestFault) -> Bool {
        queue.suppressDoorbell()
        while waiting.byteCount < neededByteCount, let free = waiting.nextFree {
            guard try queue.pop(into: free) else {
                if queue.armDoorbell() { continue }
                return false
            }
            waiting.addNextFree()
        }
        guard waiting.byteCount >= Self.frameByteCount else {
            throw GuestFault("receive buffer smaller than a frame", waiting.byteCount)
        }
        room.removeAll()
        for index in 0..<waiting.count where !room.append(waiting[index].writable) { break }
        return true
    }

    /// Gives back the buffers that a frame of `count` bytes filled, first in the first.
    private func deliver(_ count: Int, _ queue: VirtQueue) {
        var rest = UInt64(count)
        var used = 0
        repeat {
            rest -= min(rest, waiting[used].writable.byteCount)
            used += 1
        } while rest > 0 && used < waiting.count
        // The header's last field, the number of buffers (5.1.6.1).
        waiting[0].writable.store(UInt8(truncatingIfNeeded: used), at: 10)
        waiting[0].writable.store(UInt8(truncatingIfNeeded: used >> 8), at: 11)
        rest = UInt64(count)
        for _ in 0..<used {
            let buffer = waiting.removeFirst()
            let part = min(rest, buffer.writable.byteCount)
            rest -= part
            queue.push(buffer, written: UInt32(clamping: part))
        }
    }
}
