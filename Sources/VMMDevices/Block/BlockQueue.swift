import Synchronization
import VMMBase
import VMMHost
import VMMStorage
import VMMVirtIO

/// Whether the driver accepts that a write is stable only after a flush; of a whole device. Any
/// thread.
final class CacheMode: Sendable {
    private let writeback = Atomic<Bool>(true)

    var isWriteback: Bool { writeback.load(ordering: .relaxed) }
    func set(isWriteback: Bool) { writeback.store(isWriteback, ordering: .relaxed) }
}

/// One queue of a block device: takes requests off the ring in batches, hands them to the disk, and
/// gives them back in any order. Belongs to the loop that serves the queue.
final class BlockQueue: QueueServer {
    /// A request in flight: at most one for each descriptor of the queue.
    private struct Slot {
        let chain: DescriptorChain
        var status: GuestByte?
        var isRead = false
        var isChange = false
        /// The bytes that a read brings.
        var byteCount: UInt64 = 0
    }

    /// Slots that are made at once.
    private static let step = 16

    private let queue: VirtQueue
    private let disk: DiskQueue
    private let limits: BlockLimits
    private let serial: [UInt8]
    /// As many as were ever in flight, in steps: few drivers have the whole depth in flight, and
    /// after its first deep batch no request allocates anything.
    private var slots: [Slot] = []
    private var mostSlots: Int
    /// Indices of unused slots, used last in, first out, so that few pages are touched.
    private var freeSlots: [Int] = []
    private let cache: CacheMode

    /// Makes what the first requests need.
    init(
        _ queue: VirtQueue, disk: DiskQueue, limits: BlockLimits, serial: [UInt8],
        cache: CacheMode
    ) throws(HostError) {
        self.queue = queue
        self.disk = disk
        self.limits = limits
        self.serial = serial
        self.cache = cache
        mostSlots = Int(queue.size)
        try addSlots()
        if let ring = disk.ring { queue.interruptSink = ring }
    }

    var wakeSources: [FileDescriptor] { disk.wakeSources }
    var ring: IORing? { disk.ring }

    private func addSlots() throws(HostError) {
        let more = try queue.makeChains(min(Self.step, mostSlots - slots.count))
        freeSlots += (slots.count..<slots.count + more.count).reversed()
        slots += more.map { Slot(chain: $0) }
    }

    /// An unused slot; nil when as many requests are in flight as may be.
    private func unusedSlot() -> Int? {
        if freeSlots.isEmpty, slots.count < mostSlots {
            // A host without memory for more has the driver wait for those in flight.
            do { try addSlots() } catch { mostSlots = slots.count }
        }
        return freeSlots.last
    }

    private var isFull: Bool { freeSlots.isEmpty && slots.count == mostSlots }

    /// The driver rang.
    func service() throws(GuestFault) {
        // A queue's worth of requests, then the loop's other devices have their turn.
        var budget = queue.size
        repeat {
            queue.suppressDoorbell()
            disk.takeTime()
            // At most one slot a descriptor: a queue's worth of requests is taken at once, and
            // the rest when slots come back.
            while budget > 0, let slot = unusedSlot(), try queue.pop(into: slots[slot].chain) {
                budget -= 1
                freeSlots.removeLast()
                try start(slot)
            }
            disk.submit()
            complete()
        } while budget > 0 && queue.armDoorbell() && !isFull
        queue.notify()
        if budget == 0 { queue.serviceAgain() }
    }

    /// The disk has answers.
    func wake() throws(GuestFault) {
        let wasFull = isFull
        complete()
        queue.notify()
        if wasFull, queue.hasAvailable { try service() }
    }

    func settle() {
        disk.settle { complete() }
        queue.notify()
    }

    func drain() {
        // Again, for what is released may need a flush, which the limit holds back, too.
        repeat {
            disk.release()
            settle()
        } while freeSlots.count < slots.count
    }

    private func start(_ slot: Int) throws(GuestFault) {
        let chain = slots[slot].chain
        guard let status = chain.writable.removeLastByte(),
            let request = BlockRequest(chain, disk: limits)
        else {
            // Nothing is in flight for it: `drain` must not wait for this one.
            freeSlots.append(slot)
            throw GuestFault("block request without header or status", UInt64(chain.head))
        }
        slots[slot].status = status
        slots[slot].isRead = false
        slots[slot].isChange = false
        switch request {
        case .refuse(let status): finish(slot, status)
        case .getID:
            let fits = chain.writable.byteCount >= UInt64(serial.count)
            if fits { chain.writable.copyIn(serial) }
            finish(slot, fits ? .ok : .ioError, written: fits ? UInt64(serial.count) : 0)
        case .read(let offset):
            slots[slot].isRead = true
            slots[slot].byteCount = chain.writable.byteCount
            disk.start(.read(chain.writable, offset: offset), slot: slot)
        case .write(let offset):
            slots[slot].isChange = true
            disk.start(.write(chain.readable, offset: offset), slot: slot)
        case .discard(let offset, let count):
            disk.start(.discard(offset: offset, count: count), slot: slot)
        case .writeZeros(let offset, let count, let mayUnmap):
            slots[slot].isChange = true
            disk.start(
                .writeZeros(offset: offset, count: count, mayUnmap: mayUnmap), slot: slot)
        case .flush:
            disk.start(.flush, slot: slot)
        }
    }

    private func complete() {
        disk.takeTime()
        while let completion = disk.nextCompletion() {
            let slot = completion.slot
            if completion.code != 0 {
                finish(slot, .ioError)
            } else if slots[slot].isRead {
                finish(slot, .ok, written: slots[slot].byteCount)
            } else if slots[slot].isChange, !cache.isWriteback {
                // Write-through: a write is answered when it is stable.
                slots[slot].isChange = false
                disk.start(.flush, slot: slot)
            } else {
                finish(slot, .ok)
            }
        }
        disk.submit()
    }

    /// Writes the status byte and gives the chain back.
    private func finish(_ slot: Int, _ status: BlockStatus, written: UInt64 = 0) {
        slots[slot].status?.store(status.rawValue)
        queue.push(slots[slot].chain, written: UInt32(clamping: written + 1))
        freeSlots.append(slot)
    }
}
