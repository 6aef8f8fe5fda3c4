import VMMBase
import VMMHost

/// Tells the driver that a queue has used buffers. Any thread.
package protocol QueueInterrupt: AnyObject, Sendable {
    func signal()
}

/// A split virtqueue (VirtIO 1.3, 2.7), the device's side. One thread at a time: the device's
/// loop. The hot path of all I/O: see docs/HOT-PATHS.md.
package final class VirtQueue {
    /// Where the driver put a queue, and how large it made it.
    package struct Layout: Equatable, Sendable {
        package var size: UInt16 = 0
        package var descriptors = GuestAddress(0)
        package var driverArea = GuestAddress(0)
        package var deviceArea = GuestAddress(0)

        package init() {}
    }

    private enum DescriptorFlag {
        static let next: UInt16 = 1
        static let write: UInt16 = 2
        static let indirect: UInt16 = 4
    }

    /// Bit 0 of either ring's flags: the other side need not be told (2.7.7, 2.7.10).
    private static let suppress: UInt16 = 1
    private static let descriptorSize = 16

    package let size: UInt16
    private let memory: GuestMemory
    private let descriptors: GuestWindow
    private let available: GuestWindow
    private let used: GuestWindow
    private let usesEventIndex: Bool
    private let allowsIndirect: Bool
    private let interrupt: any QueueInterrupt
    private let doorbell: EventFD

    private var nextAvailable: UInt16 = 0
    private var nextUsed: UInt16 = 0
    /// `nextUsed` when the driver was last considered for an interrupt.
    private var lastNotified: UInt16 = 0

    /// Fails when the size or an address breaks the rules (size a power of two up to 32768; the
    /// areas in RAM, aligned to 16, 2 and 4 bytes).
    package init(
        _ layout: Layout, memory: GuestMemory, features: UInt64, interrupt: any QueueInterrupt,
        doorbell: EventFD
    ) throws(GuestFault) {
        let size = Int(layout.size)
        guard size.nonzeroBitCount == 1, size <= 32768 else {
            throw GuestFault("queue size is not a power of two", UInt64(layout.size))
        }
        guard
            let descriptors = GuestWindow(
                memory, at: layout.descriptors, count: Self.descriptorSize * size, alignment: 16)
        else { throw GuestFault("descriptor table outside memory", layout.descriptors.rawValue) }
        guard
            let available = GuestWindow(
                memory, at: layout.driverArea, count: 6 + 2 * size, alignment: 2)
        else { throw GuestFault("available ring outside memory", layout.driverArea.rawValue) }
        guard
            let used = GuestWindow(
                memory, at: layout.deviceArea, count: 6 + 8 * size, alignment: 4)
        else { throw GuestFault("used ring outside memory", layout.deviceArea.rawValue) }
        self.size = layout.size
        self.memory = memory
        self.descriptors = descriptors
        self.available = available
        self.used = used
        self.usesEventIndex = features & Feature.eventIndex != 0
        self.allowsIndirect = features & Feature.indirectDescriptors != 0
        self.interrupt = interrupt
        self.doorbell = doorbell
    }

    /// Chains to pop requests into: as many as the device keeps in flight at once.
    package func makeChains(_ count: Int) throws(HostError) -> [DescriptorChain] {
        try DescriptorChain.make(count, size: size)
    }

    // MARK: taking requests

    /// True when the driver has offered requests that were not taken yet.
    package var hasAvailable: Bool { available.loadAcquire16(2) != nextAvailable }

    /// Takes the next request into `chain`; false when there is none.
    package func pop(into chain: DescriptorChain) throws(GuestFault) -> Bool {
        let end = available.loadAcquire16(2)
        let waiting = end &- nextAvailable
        if waiting == 0 { return false }
        guard waiting <= size else {
            throw GuestFault("available index ran ahead of the queue", UInt64(end))
        }
        let slot = Int(nextAvailable & (size &- 1))
        let head = available.load16(4 &+ 2 &* slot)
        chain.begin(head)
        try walk(from: head, into: chain)
        nextAvailable = nextAvailable &+ 1
        return true
    }

    private func walk(from head: UInt16, into chain: DescriptorChain) throws(GuestFault) {
        var index = head
        // A chain visits each descriptor at most once; more steps than that is a loop.
        for _ in 0..<size {
            guard index < size else { throw GuestFault("descriptor index", UInt64(index)) }
            let offset = Int(index) &* Self.descriptorSize
            let entry = Descriptor(
                descriptors.load64(offset), descriptors.load64(offset &+ 8))
            if entry.flags & DescriptorFlag.indirect != 0 {
                return try walk(indirect: entry, into: chain)
            }
            try add(entry, to: chain)
            if entry.flags & DescriptorFlag.next == 0 { return }
            index = entry.next
        }
        throw GuestFault("descriptor chain loops", UInt64(head))
    }

    private func walk(indirect table: Descriptor, into chain: DescriptorChain) throws(GuestFault) {
        let count = UInt64(table.length) / UInt64(Self.descriptorSize)
        guard allowsIndirect, table.flags & DescriptorFlag.next == 0, count > 0,
            count <= UInt64(size), UInt64(table.length) % UInt64(Self.descriptorSize) == 0
        else { throw GuestFault("indirect descriptor table", table.address.rawValue) }
        var index: UInt64 = 0
        for _ in 0..<count {
            let offset = index &* UInt64(Self.descriptorSize)
            guard let address = table.address.advanced(by: offset),
                let pair = memory.loadPair(at: address)
            else { throw GuestFault("indirect table outside memory", table.address.rawValue) }
            let entry = Descriptor(pair.low, pair.high)
            guard entry.flags & DescriptorFlag.indirect == 0 else {
                throw GuestFault("indirect table inside an indirect table", index)
            }
            try add(entry, to: chain)
            if entry.flags & DescriptorFlag.next == 0 { return }
            index = UInt64(entry.next)
            guard index < count else { throw GuestFault("indirect index", index) }
        }
        throw GuestFault("indirect chain loops", table.address.rawValue)
    }

    private func add(_ entry: Descriptor, to chain: DescriptorChain) throws(GuestFault) {
        let isAdded: Bool
        if entry.flags & DescriptorFlag.write != 0 {
            isAdded = chain.writable.append(entry.address, count: entry.length, in: memory)
        } else {
            guard chain.writable.count == 0 else {
                throw GuestFault("readable descriptor after a writable one", entry.address.rawValue)
            }
            isAdded = chain.readable.append(entry.address, count: entry.length, in: memory)
        }
        guard isAdded else { throw GuestFault("descriptor outside memory", entry.address.rawValue) }
    }

    /// A descriptor, fetched once: the guest may change it while we look.
    private struct Descriptor {
        let address: GuestAddress
        let length: UInt32
        let flags: UInt16
        let next: UInt16

        /// Address in the first eight bytes; length, flags and next in the others (2.7.5).
        init(_ low: UInt64, _ high: UInt64) {
            address = GuestAddress(low)
            length = UInt32(truncatingIfNeeded: high)
            flags = UInt16(truncatingIfNeeded: high >> 32)
            next = UInt16(truncatingIfNeeded: high >> 48)
        }
    }

    // MARK: giving them back

    /// Gives a request back with `written` bytes of its writable memory filled. The driver sees
    /// it at once and is interrupted by the next `notify`.
    package func push(_ chain: DescriptorChain, written: UInt32) {
        let slot = 4 &+ 8 &* Int(nextUsed & (size &- 1))
        used.store32(slot, UInt32(chain.head))
        used.store32(slot &+ 4, written)
        nextUsed = nextUsed &+ 1
        used.storeRelease16(2, nextUsed)
    }

    /// Interrupts the driver if it wants that for what was pushed since the last call.
    package func notify() {
        guard nextUsed != lastNotified else { return }
        // The driver may enable interrupts while we push: our index must be out before we look.
        GuestWindow.fullBarrier()
        let before = lastNotified
        lastNotified = nextUsed
        if usesEventIndex {
            let event = available.load16(4 &+ 2 &* Int(size))
            // The event lies between the old and the new index (2.7.10.1), modulo 2^16.
            if nextUsed &- event &- 1 < nextUsed &- before { interrupt.signal() }
        } else if available.load16(0) & Self.suppress == 0 {
            interrupt.signal()
        }
    }

    // MARK: doorbells

    /// Has the device serviced again after others had their turn: for a device that stops at its
    /// bound of work while requests are left, for which the driver will not ring.
    package func serviceAgain() {
        doorbell.signal()
    }

    /// Asks the driver not to ring while requests are taken anyway.
    package func suppressDoorbell() {
        // With event index a stale event already keeps the driver quiet.
        if !usesEventIndex { used.store16(0, Self.suppress) }
    }

    /// Asks the driver to ring for the next request. True when one came in meanwhile, for which
    /// it will not ring: look again.
    package func armDoorbell() -> Bool {
        if usesEventIndex {
            used.store16(4 &+ 8 &* Int(size), nextAvailable)
        } else {
            used.store16(0, 0)
        }
        GuestWindow.fullBarrier()
        return hasAvailable
    }
}
