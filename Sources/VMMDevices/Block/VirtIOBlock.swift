import VMMBase
import VMMHost
import VMMStorage
import VMMVirtIO

/// virtio-blk (VirtIO 1.3, 5.2): the disk's features and configuration; its requests are
/// `BlockQueue`'s.
package final class VirtIOBlock: VirtIODevice {
    private enum FeatureBit {
        static let segmentMaximum: UInt64 = 1 << 2
        static let readOnly: UInt64 = 1 << 5
        static let blockSize: UInt64 = 1 << 6
        static let flush: UInt64 = 1 << 9
        static let topology: UInt64 = 1 << 10
        static let writebackSwitch: UInt64 = 1 << 11
        static let multiqueue: UInt64 = 1 << 12
        static let discard: UInt64 = 1 << 13
        static let writeZeros: UInt64 = 1 << 14
    }

    package static let serialByteCount = 20
    private static let writebackOffset = 32

    package let id: String
    package let deviceType = VirtIODeviceType.block
    package let queueSizes: [UInt16]
    package let writableConfiguration = VirtIOBlock.writebackOffset..<33
    package var configurationChanged: (() -> Void)?

    private let disk: Disk
    private let serial: [UInt8]
    private let clock: any HostClock
    private let cache = CacheMode()
    private var hasWarned = false
    private var canSwitchWriteback = false
    private var queues: [BlockQueue?] = []
    /// For each wake source the queue that it belongs to.
    private var wakeQueues: [BlockQueue] = []
    /// One for each queue, or none: then the device's loop serves all.
    private let threads: [LoopThread]

    /// `threads`: one for each queue, or none.
    package init(
        id: String, disk: Disk, queueSizes: [UInt16], serial: String?, clock: any HostClock,
        threads: [LoopThread] = []
    ) {
        precondition(threads.isEmpty || threads.count == queueSizes.count, "a thread a queue")
        self.threads = threads
        self.id = id
        self.disk = disk
        self.queueSizes = queueSizes
        self.clock = clock
        var bytes = Array((serial ?? disk.defaultSerial).utf8.prefix(Self.serialByteCount))
        bytes += repeatElement(0, count: Self.serialByteCount - bytes.count)
        self.serial = bytes
    }

    package var offeredFeatures: UInt64 {
        var features =
            FeatureBit.segmentMaximum | FeatureBit.blockSize | FeatureBit.flush
            | FeatureBit.topology | FeatureBit.writebackSwitch
        if queueSizes.count > 1 { features |= FeatureBit.multiqueue }
        if disk.isReadOnly {
            features |= FeatureBit.readOnly
        } else {
            features |= FeatureBit.writeZeros
            if disk.isSparse { features |= FeatureBit.discard }
        }
        return features
    }

    package var configuration: [UInt8] {
        let sectorSize = UInt32(Disk.sectorSize)
        let blockSectors = disk.logicalBlockSize / sectorSize
        let physicalExponent = (disk.physicalBlockSize / max(1, disk.logicalBlockSize))
            .trailingZeroBitCount
        var bytes = ByteBuilder()
        bytes.append(disk.sectorCount)
        bytes.append(UInt32(0))
        bytes.append(UInt32(queueSizes[0] - 2))
        bytes.append(UInt32(0))
        bytes.append(disk.logicalBlockSize)
        bytes.append(UInt8(clamping: physicalExponent & 31))
        bytes.append(UInt8(0))
        bytes.append(UInt16(1))
        bytes.append(UInt32(0))
        bytes.append(UInt8(cache.isWriteback ? 1 : 0))
        bytes.append(UInt8(0))
        bytes.append(UInt16(queueSizes.count))
        bytes.append(BlockLimits.maximumDiscardSectors)
        bytes.append(UInt32(1))
        bytes.append(max(1, blockSectors))
        bytes.append(BlockLimits.maximumZeroSectors)
        bytes.append(UInt32(1))
        bytes.append(UInt8(disk.isSparse ? 1 : 0))
        bytes.appendZeros(3)
        return bytes.bytes
    }

    package func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        // Without FLUSH the driver has no way to ask for stability, so each write gives it.
        canSwitchWriteback = features & FeatureBit.writebackSwitch != 0
        cache.set(
            isWriteback: features & (FeatureBit.flush | FeatureBit.writebackSwitch) != 0)
        self.queues = Array(repeating: nil, count: queueSizes.count)
        for (index, queue) in queues.enumerated() {
            if let queue { try activate(queue, at: index) }
        }
        warnOfFirstSector()
    }

    package func activate(_ queue: VirtQueue, at index: Int) throws {
        queues[index] = try BlockQueue(
            queue, disk: DiskQueue(disk, depth: Int(queue.size), clock: clock),
            limits: BlockLimits(disk), serial: serial, cache: cache)
        findWakeQueues()
    }

    private func findWakeQueues() {
        guard threads.isEmpty else { return }
        wakeQueues = queues.compactMap { $0 }.flatMap { queue in
            Array(repeating: queue, count: queue.wakeSources.count)
        }
    }

    /// Once, and not before the guest uses the disk: mistakes of the user are told alone.
    private func warnOfFirstSector() {
        guard disk.protectsFirstSector, !disk.isReadOnly, !hasWarned else { return }
        hasWarned = true
        Log.warning(
            "\(id): sector 0 stays as it is, for the raw image is not declared; "
                + "image_type=raw frees it")
    }

    package func quiesce(queue index: Int) {
        queues[index]?.settle()
        queues[index] = nil
        findWakeQueues()
    }

    package func drain() {
        for queue in queues { queue?.drain() }
    }

    package func quiesce() {
        for queue in queues { queue?.settle() }
        queues = []
        wakeQueues = []
        cache.set(isWriteback: true)
    }

    package var handle: (any DeviceHandle)? { DiskHandle(disk: disk) }

    package func configurationWritten(_ bytes: [UInt8]) {
        guard canSwitchWriteback, bytes.count > Self.writebackOffset else { return }
        cache.set(isWriteback: bytes[Self.writebackOffset] & 1 == 1)
    }

    package func service(queue index: Int) throws(GuestFault) {
        guard index < queues.count else { return }
        try queues[index]?.service()
    }

    package var assignments: [QueueAssignment] {
        zip(threads, queues).enumerated().compactMap { index, pair in
            pair.1.map { queue in
                QueueAssignment(
                    queue: index, thread: pair.0, server: LoopBound(adopting: queue))
            }
        }
    }

    package var wakeSources: [FileDescriptor] {
        guard threads.isEmpty else { return [] }
        return queues.compactMap { $0 }.flatMap(\.wakeSources)
    }

    package var rings: [IORing] {
        threads.isEmpty ? queues.compactMap { $0?.ring } : []
    }

    package func wake(source index: Int) throws(GuestFault) {
        guard index < wakeQueues.count else { return }
        try wakeQueues[index].wake()
    }

    package func finish() {
        for thread in threads { thread.end() }
        if let error = disk.close() { Log.error("\(id): \(error)") }
    }
}
