import VMMBase
import VMMHost

/// The split format (VirtIO 1.3, 2.7): a table of descriptors, in the driver's area the ring of
/// requests that it offers, in the device's area the ring of those that were used.
extension VirtQueue {
    /// Bit 0 of either ring's flags: the other side need not be told (2.7.7, 2.7.10).
    private static let suppress: UInt16 = 1

    static func splitAreas(
        _ layout: Layout, _ memory: GuestMemory
    ) throws(GuestFault) -> Areas {
        let size = Int(layout.size)
        guard size.nonzeroBitCount == 1, size <= largestSize else {
            throw GuestFault("queue size is not a power of two", UInt64(layout.size))
        }
        guard
            let descriptors = GuestWindow(
                memory, at: layout.descriptors, count: Descriptor.byteCount * size, alignment: 16)
        else { throw GuestFault("descriptor table outside memory", layout.descriptors.rawValue) }
        guard
            let available = GuestWindow(
                memory, at: layout.driverArea, count: 6 + 2 * size, alignment: 2)
        else { throw GuestFault("available ring outside memory", layout.driverArea.rawValue) }
        guard
            let used = GuestWindow(
                memory, at: layout.deviceArea, count: 6 + 8 * size, alignment: 4)
        else { throw GuestFault("used ring outside memory", layout.deviceArea.rawValue) }
        return Areas(descriptors: descriptors, driver: available, device: used)
    }

    // MARK: taking requests

    var hasAvailableSplit: Bool { driverArea.loadAcquire16(2) != nextAvailable }

    func popSplit(into chain: DescriptorChain) throws(GuestFault) -> Bool {
        let end = driverArea.loadAcquire16(2)
        let waiting = end &- nextAvailable
        if waiting == 0 { return false }
        guard waiting <= size else {
            throw GuestFault("available index ran ahead of the queue", UInt64(end))
        }
        let slot = Int(nextAvailable & (size &- 1))
        let head = driverArea.load16(4 &+ 2 &* slot)
        chain.begin(head)
        try walkSplit(from: head, into: chain)
        nextAvailable = nextAvailable &+ 1
        return true
    }

    private func walkSplit(from head: UInt16, into chain: DescriptorChain) throws(GuestFault) {
        var index = head
        // A chain visits each descriptor at most once; more steps than that is a loop.
        for _ in 0..<size {
            guard index < size else { throw GuestFault("descriptor index", UInt64(index)) }
            let offset = Int(index) &* Descriptor.byteCount
            let entry = Descriptor(
                split: descriptors.load64(offset), descriptors.load64(offset &+ 8))
            if entry.has(Descriptor.Flag.indirect) {
                return try walkSplit(indirect: entry, into: chain)
            }
            try chain.add(entry, in: memory)
            if !entry.has(Descriptor.Flag.next) { return }
            index = entry.link
        }
        throw GuestFault("descriptor chain loops", UInt64(head))
    }

    private func walkSplit(indirect table: Descriptor, into chain: DescriptorChain)
        throws(GuestFault)
    {
        guard allowsIndirect, !table.has(Descriptor.Flag.next) else { throw table.tableFault }
        let count = try table.tableCount(ringSize: size)
        var index: UInt64 = 0
        for _ in 0..<count {
            let offset = index &* UInt64(Descriptor.byteCount)
            guard let address = table.address.advanced(by: offset),
                let pair = memory.loadPair(at: address)
            else { throw GuestFault("indirect table outside memory", table.address.rawValue) }
            let entry = Descriptor(split: pair.low, pair.high)
            guard !entry.has(Descriptor.Flag.indirect) else {
                throw GuestFault("indirect table inside an indirect table", index)
            }
            try chain.add(entry, in: memory)
            if !entry.has(Descriptor.Flag.next) { return }
            index = UInt64(entry.link)
            guard index < count else { throw GuestFault("indirect index", index) }
        }
        throw GuestFault("indirect chain loops", table.address.rawValue)
    }

    // MARK: giving them back

    func pushSplit(_ chain: DescriptorChain, written: UInt32) {
        let slot = 4 &+ 8 &* Int(nextUsed & (size &- 1))
        deviceArea.store32(slot, UInt32(chain.head))
        deviceArea.store32(slot &+ 4, written)
        nextUsed = nextUsed &+ 1
        deviceArea.storeRelease16(2, nextUsed)
        unnotified &+= 1
    }

    /// Whether the driver wants to hear of what is unnotified.
    var wantsInterruptSplit: Bool {
        guard usesEventIndex else { return driverArea.load16(0) & Self.suppress == 0 }
        let event = driverArea.load16(4 &+ 2 &* Int(size))
        // The event lies between the old and the new index (2.7.10.1), modulo 2^16.
        return Int(nextUsed &- event &- 1) < unnotified
    }

    // MARK: doorbells

    func suppressDoorbellSplit() { deviceArea.store16(0, Self.suppress) }

    func armDoorbellSplit() {
        if usesEventIndex {
            deviceArea.store16(4 &+ 8 &* Int(size), nextAvailable)
        } else {
            deviceArea.store16(0, 0)
        }
    }
}
