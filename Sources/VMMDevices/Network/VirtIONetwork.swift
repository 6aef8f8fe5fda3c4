import VMMBase
import VMMHost
import VMMNetwork
import VMMVirtIO

/// virtio-net (VirtIO 1.3, 5.1): pairs of queues, each on a backend of its own, and the control
/// queue. Frames go between guest memory and the backend without a copy of ours.
package final class VirtIONetwork: VirtIODevice {
    /// The largest frame with a VLAN tag, but for what the MTU counts.
    private static let framingByteCount: UInt64 = 18 + TapInterface.headerByteCount
    private static let standardMTU: UInt16 = 1500
    /// The largest segmented frame: 64 KiB of IP behind an Ethernet header.
    private static let largeFrameByteCount: UInt64 = 65550 + TapInterface.headerByteCount

    private enum Status {
        static let linkUp: UInt16 = 1
        static let announce: UInt16 = 2
    }

    /// What a network device is, but for its backends.
    package struct Parameters {
        package var mac: MACAddress
        package var offloads: NetworkOffloads
        /// What the driver is told; nil: it has to know.
        package var mtu: UInt16?
        package var queueSize: UInt16
        package var receiveLimiter: RateLimiter?
        package var transmitLimiter: RateLimiter?
        /// How often the driver may switch pairs and offloads; nil: as often as it likes.
        package var changeLimit: ChangeLimit?

        package init(mac: MACAddress, offloads: NetworkOffloads, queueSize: UInt16) {
            self.mac = mac
            self.offloads = offloads
            self.queueSize = queueSize
        }
    }

    package let id: String
    package let deviceType = VirtIODeviceType.network
    package let queueSizes: [UInt16]
    package var configurationChanged: (() -> Void)?

    private let backends: [any FrameBackend]
    private var parameters: Parameters
    /// One for each pair, or none: then the device's loop serves all.
    private let threads: [LoopThread]
    private let received: [FrameCounter]
    private let sent: [FrameCounter]

    private var receivers: [ReceiveQueue?] = []
    private var transmitters: [TransmitQueue?] = []
    private var control: NetworkControl?
    private var controlIndex = 0
    /// For each wake source the queue that it belongs to.
    private var wakeServers: [any QueueServer] = []
    private var features: UInt64 = 0
    /// But for the link, which is the backend's.
    private var status: UInt16 = 0
    private var usedPairs = 1
    private var offloads: TapInterface.Offloads = []

    /// One backend for each pair of queues; `threads`: as many, or none.
    package init(
        id: String, backends: [any FrameBackend], _ parameters: Parameters,
        threads: [LoopThread] = []
    ) {
        precondition(!backends.isEmpty, "a network device has a pair of queues")
        precondition(threads.isEmpty || threads.count == backends.count, "a thread a pair")
        self.id = id
        self.backends = backends
        self.parameters = parameters
        self.threads = threads
        received = backends.map { _ in FrameCounter() }
        sent = backends.map { _ in FrameCounter() }
        queueSizes = Array(repeating: parameters.queueSize, count: 2 * backends.count + 1)
        for backend in backends {
            backend.linkChanged = { [weak self] in self?.linkChanged() }
        }
    }

    package var offeredFeatures: UInt64 {
        var features = backends[0].offersOffloads ? parameters.offloads.features : 0
        features |= NetworkFeature.mac | NetworkFeature.status | NetworkFeature.mergeableBuffers
        features |= NetworkFeature.controlQueue | NetworkFeature.announce
        if backends.count > 1 { features |= NetworkFeature.multiqueue }
        if parameters.mtu != nil { features |= NetworkFeature.mtu }
        return features
    }

    package var configuration: [UInt8] {
        var bytes = ByteBuilder(parameters.mac.bytes)
        bytes.append(status | (backends[0].isLinkUp ? Status.linkUp : 0))
        bytes.append(UInt16(backends.count))
        bytes.append(parameters.mtu ?? 0)
        return bytes.bytes
    }

    /// Of all pairs, since the device was made. Any thread.
    package var statistics: NetworkStatistics {
        networkHandle.statistics
    }

    package var handle: (any DeviceHandle)? { networkHandle }
    private var networkHandle: NetworkHandle {
        NetworkHandle(received: received, sent: sent, losses: backends.map(\.losses))
    }

    /// A link that is up again may lead elsewhere: the driver is asked to tell the network where it
    /// is now (5.1.6.5.4).
    private func linkChanged() {
        if backends[0].isLinkUp, features & NetworkFeature.announce != 0 {
            status |= Status.announce
        }
        configurationChanged?()
    }

    /// While the machine stood still its address may have been forgotten, or have moved with it.
    package func resumed() {
        if backends[0].isLinkUp { linkChanged() }
    }

    // MARK: life

    package func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        self.features = features
        let pairs = features & NetworkFeature.multiqueue != 0 ? backends.count : 1
        // Behind the pairs that the driver knows of (5.1.2).
        controlIndex = 2 * pairs
        receivers = Array(repeating: nil, count: pairs)
        transmitters = Array(repeating: nil, count: pairs)
        for (index, queue) in queues.enumerated() {
            if let queue { try activate(queue, at: index) }
        }
        use(NetworkFeature.offloads(features))
        // Until the driver asks for more (5.1.6.5.5).
        use(pairs: 1)
    }

    package func activate(_ queue: VirtQueue, at index: Int) throws {
        let pair = index / 2
        if index == controlIndex {
            control = try NetworkControl(queue)
        } else if pair < receivers.count {
            if index % 2 == 0 {
                receivers[pair] = try receiver(queue, pair)
            } else {
                transmitters[pair] = try TransmitQueue(
                    queue, backends[pair], limiter: parameters.transmitLimiter,
                    counter: sent[pair])
            }
            findWakeServers()
        }
    }

    package func quiesce(queue index: Int) {
        let pair = index / 2
        if index == controlIndex {
            control = nil
        } else if pair < receivers.count {
            if index % 2 == 0 { receivers[pair] = nil } else { transmitters[pair] = nil }
            findWakeServers()
        }
    }

    private func findWakeServers() {
        guard threads.isEmpty else { return }
        wakeServers = zip(receivers, transmitters).flatMap { receiver, transmitter in
            ([receiver, transmitter] as [(any QueueServer)?]).compactMap { $0 }.flatMap { server in
                Array(repeating: server, count: server.wakeSources.count)
            }
        }
    }

    private func receiver(_ queue: VirtQueue, _ index: Int) throws(HostError) -> ReceiveQueue {
        let mtu = UInt64(max(parameters.mtu ?? 0, Self.standardMTU))
        return try ReceiveQueue(
            queue, backends[index], limiter: parameters.receiveLimiter, counter: received[index],
            mergesBuffers: features & NetworkFeature.mergeableBuffers != 0,
            frameByteCount: features & NetworkFeature.guestLargeFrames == 0
                ? mtu + Self.framingByteCount : Self.largeFrameByteCount)
    }

    package func quiesce() {
        receivers = []
        transmitters = []
        control = nil
        wakeServers = []
        features = 0
        status = 0
    }

    package func attach() throws {
        for backend in backends { try backend.attach() }
    }

    package func detach() {
        for backend in backends { backend.detach() }
    }

    package func finish() {
        for thread in threads { thread.end() }
        for backend in backends { backend.finish() }
    }

    // MARK: events

    package func service(queue index: Int) throws(GuestFault) {
        if index == controlIndex {
            try control?.service(perform)
        } else if index / 2 < receivers.count {
            if index % 2 == 0 {
                try receivers[index / 2]?.service()
            } else {
                try transmitters[index / 2]?.service()
            }
        }
    }

    package var assignments: [QueueAssignment] {
        zip(threads, zip(receivers, transmitters)).enumerated().flatMap { index, entry in
            let servers: [(any QueueServer)?] = [entry.1.0, entry.1.1]
            return servers.enumerated().compactMap { offset, server in
                server.map { server in
                    QueueAssignment(
                        queue: 2 * index + offset, thread: entry.0,
                        server: LoopBound(adopting: server))
                }
            }
        }
    }

    package var wakeSources: [FileDescriptor] {
        guard threads.isEmpty else { return [] }
        return zip(receivers, transmitters).flatMap { receiver, transmitter in
            (receiver?.wakeSources ?? []) + (transmitter?.wakeSources ?? [])
        }
    }

    package func wake(source index: Int) throws(GuestFault) {
        guard index < wakeServers.count else { return }
        try wakeServers[index].wake()
    }

    // MARK: control

    private func perform(_ command: NetworkControl.Command) -> Bool {
        switch command {
        case .usePairs(let count):
            guard features & NetworkFeature.multiqueue != 0, (1...backends.count).contains(count),
                mayChange(calls: abs(count - usedPairs))
            else { return false }
            use(pairs: count)
        case .setOffloads(let wanted):
            guard features & NetworkFeature.controlOffloads != 0,
                wanted & ~(features & NetworkFeature.switchable) == 0,
                mayChange(calls: NetworkFeature.offloads(wanted) == offloads ? 0 : 1)
            else { return false }
            use(NetworkFeature.offloads(wanted))
        case .announced:
            guard features & NetworkFeature.announce != 0 else { return false }
            status &= ~Status.announce
        case .filter: break
        }
        return true
    }

    /// A driver that asks too often is refused: Linux spins while a command has no answer.
    private func mayChange(calls: Int) -> Bool {
        calls == 0 || parameters.changeLimit?.admits(calls) ?? true
    }

    private func use(_ offloads: TapInterface.Offloads) {
        self.offloads = offloads
        backends[0].setOffloads(offloads)
    }

    /// The host spreads frames over the first `count` pairs.
    private func use(pairs count: Int) {
        usedPairs = count
        guard backends.count > 1 else { return }
        for (index, backend) in backends.enumerated() { backend.setEnabled(index < count) }
    }
}
