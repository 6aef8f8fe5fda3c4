import VMMBase
import VMMHost
import VMMStorage
import VMMVirtIO

/// virtio-blk (VirtIO 1.3, 5.2) on one queue. Requests go to the disk's engine in batches and
/// come back in any order.
package final class VirtIOBlock: VirtIODevice {
    private enum FeatureBit {
        static let segmentMaximum: UInt64 = 1 << 2
        static let readOnly: UInt64 = 1 << 5
        static let blockSize: UInt64 = 1 << 6
        static let flush: UInt64 = 1 << 9
        static let topology: UInt64 = 1 << 10
        static let writebackSwitch: UInt64 = 1 << 11
        static let discard: UInt64 = 1 << 13
        static let writeZeros: UInt64 = 1 << 14
    }

    package static let serialByteCount = 20
    private static let writebackOffset = 32

    /// A request in flight; one for each descriptor of the queue, made at activation.
    private struct Slot {
        let chain: DescriptorChain
        var status: GuestByte?
        var request = BlockRequest.flush
        /// Data bytes moved so far, for short transfers.
        var moved: UInt64 = 0
        /// A write-through write is flushed before it is answered.
        var isFlushing = false
    }

    package let id: String
    package let deviceType = VirtIODeviceType.block
    package let queueSizes: [UInt16]
    package let writableConfiguration = VirtIOBlock.writebackOffset..<33
    package var configurationChanged: (() -> Void)?

    private let disk: RawDisk
    private let limits: BlockLimits
    private let serial: [UInt8]
    private let allowsRing: Bool
    private var isWriteback = true
    private var canSwitchWriteback = false

    private var queue: VirtQueue?
    private var engine: (any DiskEngine)?
    private var slots: [Slot] = []
    /// Indices of unused slots, used last in, first out, so that few pages are touched.
    private var freeSlots: [Int] = []

    package init(id: String, disk: RawDisk, queueSize: UInt16, serial: String?, allowsRing: Bool) {
        self.id = id
        self.disk = disk
        self.queueSizes = [queueSize]
        self.allowsRing = allowsRing
        limits = BlockLimits(sectorCount: disk.sectorCount, isReadOnly: disk.isReadOnly)
        var bytes = Array((serial ?? disk.defaultSerial).utf8.prefix(Self.serialByteCount))
        bytes += repeatElement(0, count: Self.serialByteCount - bytes.count)
        self.serial = bytes
    }

    package var offeredFeatures: UInt64 {
        let always =
            FeatureBit.segmentMaximum | FeatureBit.blockSize | FeatureBit.flush
            | FeatureBit.topology | FeatureBit.writebackSwitch
        return always
            | (disk.isReadOnly ? FeatureBit.readOnly : FeatureBit.discard | FeatureBit.writeZeros)
    }

    package var configuration: [UInt8] {
        let blockSectors = disk.logicalBlockSize / UInt32(RawDisk.sectorSize)
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
        bytes.append(UInt8(isWriteback ? 1 : 0))
        bytes.append(UInt8(0))
        bytes.append(UInt16(1))
        bytes.append(UInt32.max / UInt32(RawDisk.sectorSize))
        bytes.append(UInt32(1))
        bytes.append(max(1, blockSectors))
        bytes.append(BlockLimits.maximumZeroSectors)
        bytes.append(UInt32(1))
        bytes.append(UInt8(1))
        bytes.appendZeros(3)
        return bytes.bytes
    }

    // MARK: life

    package func activate(_ queues: [VirtQueue?], features: UInt64) throws {
        guard let first = queues.first, let queue = first else { return }
        slots = try queue.makeChains(Int(queue.size)).map { Slot(chain: $0) }
        freeSlots = Array(slots.indices.reversed())
        engine = disk.makeEngine(depth: UInt32(queue.size), allowsRing: allowsRing)
        // Without FLUSH the driver has no way to ask for stability, so each write gives it.
        canSwitchWriteback = features & FeatureBit.writebackSwitch != 0
        isWriteback = features & (FeatureBit.flush | FeatureBit.writebackSwitch) != 0
        self.queue = queue
    }

    package func quiesce() {
        while let engine, freeSlots.count < slots.count {
            engine.submit()
            engine.wait()
            complete()
        }
        queue?.notify()
        queue = nil
        engine = nil
        slots = []
        freeSlots = []
        isWriteback = true
    }

    package func configurationWritten(_ bytes: [UInt8]) {
        guard canSwitchWriteback, bytes.count > Self.writebackOffset else { return }
        isWriteback = bytes[Self.writebackOffset] & 1 == 1
    }

    // MARK: requests

    package func service(queue index: Int) throws(GuestFault) {
        guard let queue else { return }
        // A queue's worth of requests, then the loop's other devices have their turn.
        var budget = queue.size
        repeat {
            queue.suppressDoorbell()
            // At most one slot a descriptor: a queue's worth of requests is taken at once, and
            // the rest when slots come back.
            while budget > 0, let slot = freeSlots.last, try queue.pop(into: slots[slot].chain) {
                budget -= 1
                freeSlots.removeLast()
                try start(slot)
            }
            engine?.submit()
            complete()
        } while budget > 0 && queue.armDoorbell() && !freeSlots.isEmpty
        queue.notify()
        if budget == 0 { queue.serviceAgain() }
    }

    package var wakeSources: [FileDescriptor] {
        engine?.completionSource.map { [$0] } ?? []
    }

    package func wake(source index: Int) throws(GuestFault) {
        let wasFull = freeSlots.isEmpty
        complete()
        queue?.notify()
        if wasFull, queue?.hasAvailable == true { try service(queue: 0) }
    }

    private func start(_ slot: Int) throws(GuestFault) {
        let chain = slots[slot].chain
        guard let status = chain.writable.removeLastByte(),
            let request = BlockRequest(chain, disk: limits)
        else {
            // Nothing is in flight for it: `quiesce` must not wait for this one.
            freeSlots.append(slot)
            throw GuestFault("block request without header or status", UInt64(chain.head))
        }
        slots[slot].status = status
        slots[slot].request = request
        slots[slot].moved = 0
        slots[slot].isFlushing = false
        switch request {
        case .refuse(let status): finish(slot, status)
        case .getID:
            let fits = chain.writable.byteCount >= UInt64(Self.serialByteCount)
            if fits { chain.writable.copyIn(serial) }
            finish(slot, fits ? .ok : .ioError, written: fits ? UInt64(Self.serialByteCount) : 0)
        default: enqueue(slot)
        }
    }

    private func enqueue(_ slot: Int) {
        let chain = slots[slot].chain
        let moved = slots[slot].moved
        let operation: IORing.Operation
        switch slots[slot].request {
        case .read(let offset):
            operation = .read(chain.writable, offset: offset + moved)
        case .write(let offset) where !slots[slot].isFlushing:
            operation = .write(chain.readable, offset: offset + moved)
        case .discard(let offset, let count):
            operation = .range(.discard, offset: offset, count: count)
        case .writeZeros(let offset, let count, let mayUnmap):
            operation = .range(.writeZeros(mayUnmap: mayUnmap), offset: offset, count: count)
        case .write, .flush, .getID, .refuse:
            operation = .flush
        }
        engine?.enqueue(operation, token: UInt64(slot))
    }

    /// Takes all completions there are, and starts what follows from them: the rest of a short
    /// transfer, the flush of a write-through write.
    private func complete() {
        while let completion = engine?.nextCompletion() {
            let slot = Int(completion.token)
            precondition(slots.indices.contains(slot), "a completion carries the token of a slot")
            finishOrGoOn(slot, completion.result)
        }
        engine?.submit()
    }
}

// Completions.
extension VirtIOBlock {
    private static let unsupportedByFile: Int32 = 95

    private func finishOrGoOn(_ slot: Int, _ result: Int32) {
        switch slots[slot].request {
        case .read, .write:
            transferred(slot, result)
        case .discard:
            // Discard is advice: a file that cannot do it keeps its blocks.
            let isFine = result >= 0 || result == -Self.unsupportedByFile
            finish(slot, isFine ? .ok : .ioError)
        case .writeZeros(let offset, let count, _):
            finish(slot, result >= 0 || zeroByHand(offset, count, result) ? .ok : .ioError)
        case .flush, .getID, .refuse:
            finish(slot, result >= 0 ? .ok : .ioError)
        }
    }

    private func zeroByHand(_ offset: UInt64, _ count: UInt64, _ result: Int32) -> Bool {
        guard result == -Self.unsupportedByFile else { return false }
        do throws(HostError) {
            try disk.file.writeZeros(offset: offset, count: count)
            return true
        } catch {
            Log.warning("\(id): \(error)")
            return false
        }
    }

    private func transferred(_ slot: Int, _ result: Int32) {
        if slots[slot].isFlushing {
            finish(slot, result >= 0 ? .ok : .ioError)
            return
        }
        guard result > 0 else {
            finish(slot, .ioError)
            return
        }
        let chain = slots[slot].chain
        let isRead = if case .read = slots[slot].request { true } else { false }
        let vector = isRead ? chain.writable : chain.readable
        vector.removeFirst(Int(result))
        slots[slot].moved += UInt64(result)
        if !vector.isEmpty {
            enqueue(slot)
        } else if !isRead, !isWriteback {
            slots[slot].isFlushing = true
            enqueue(slot)
        } else {
            finish(slot, .ok, written: isRead ? slots[slot].moved : 0)
        }
    }

    /// Writes the status byte and gives the chain back.
    private func finish(_ slot: Int, _ status: BlockStatus, written: UInt64 = 0) {
        let chain = slots[slot].chain
        slots[slot].status?.store(status.rawValue)
        queue?.push(chain, written: UInt32(clamping: written + 1))
        freeSlots.append(slot)
    }
}
