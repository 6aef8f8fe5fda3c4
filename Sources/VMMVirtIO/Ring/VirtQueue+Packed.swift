import VMMBase
import VMMHost

/// The packed format (VirtIO 1.3, 2.8): one ring of descriptors that the driver writes to offer
/// requests and the device overwrites to give them back; the other areas say who wants to be told.
extension VirtQueue {
    /// Which lap around the ring wrote a descriptor last, on either side (2.8.1).
    private enum Lap {
        static let available: UInt16 = 1 << 7
        static let used: UInt16 = 1 << 15
        static let both = available | used
    }

    /// The flags of an event suppression structure, in the upper half of its four bytes (2.8.14).
    private enum Events {
        static let disable: UInt32 = 1 << 16
        static let atDescriptor: UInt32 = 2 << 16
        static let mask: UInt32 = 3 << 16
    }

    static func packedAreas(
        _ layout: Layout, _ memory: GuestMemory
    ) throws(GuestFault) -> Areas {
        let size = Int(layout.size)
        guard size > 0, size <= largestSize else {
            throw GuestFault("queue size is not from 1 to 32768", UInt64(layout.size))
        }
        guard
            let descriptors = GuestWindow(
                memory, at: layout.descriptors, count: Descriptor.byteCount * size, alignment: 16)
        else { throw GuestFault("descriptor ring outside memory", layout.descriptors.rawValue) }
        guard let driver = GuestWindow(memory, at: layout.driverArea, count: 4, alignment: 4)
        else { throw GuestFault("driver events outside memory", layout.driverArea.rawValue) }
        guard let device = GuestWindow(memory, at: layout.deviceArea, count: 4, alignment: 4)
        else { throw GuestFault("device events outside memory", layout.deviceArea.rawValue) }
        return Areas(descriptors: descriptors, driver: driver, device: device)
    }

    /// What lies between the two places of a position; a fault if that is no position of the ring.
    static func slotsInFlight(_ position: Position, _ size: UInt16) throws(GuestFault) -> UInt16 {
        let available = PackedPlace(position.available)
        let used = PackedPlace(position.used)
        let count = available.distance(from: used, size: size)
        guard available.index < size, used.index < size, count <= Int(size) else {
            throw GuestFault("queue position outside the ring", UInt64(position.available))
        }
        return UInt16(count)
    }

    // MARK: taking requests

    var hasAvailablePacked: Bool {
        let next = PackedPlace(nextAvailable)
        let flags = descriptors.loadAcquire16(Int(next.index) &* Descriptor.byteCount &+ 14)
        return Self.isAvailable(flags, next)
    }

    /// The driver's bit is that of our lap, the device's bit is not.
    private static func isAvailable(_ flags: UInt16, _ place: PackedPlace) -> Bool {
        flags & Lap.both == (place.wrap ? Lap.available : Lap.used)
    }

    func popPacked(into chain: DescriptorChain) throws(GuestFault) -> Bool {
        var next = PackedPlace(nextAvailable)
        let offset = Int(next.index) &* Descriptor.byteCount
        // The flags come last from the driver, so they and what lies beside them come first here.
        let high = descriptors.loadAcquire64(offset &+ 8)
        guard Self.isAvailable(UInt16(truncatingIfNeeded: high >> 48), next) else { return false }
        let head = Descriptor(packed: descriptors.load64(offset), high)
        chain.begin(head.link)
        var slots: UInt16 = 1
        if head.has(Descriptor.Flag.indirect) {
            guard !head.has(Descriptor.Flag.next) else { throw head.tableFault }
            try walkPacked(indirect: head, into: chain)
        } else {
            try chain.add(head, in: memory)
            if head.has(Descriptor.Flag.next) { slots = try walkRest(behind: next, into: chain) }
        }
        // Else the driver wrote over requests that it does not have back yet.
        guard slots <= size &- slotsInFlight else {
            throw GuestFault("more descriptors in flight than the queue has", UInt64(chain.head))
        }
        chain.slots = slots
        slotsInFlight &+= slots
        next.advance(by: slots, size: size)
        nextAvailable = next.bits
        return true
    }

    /// The descriptors behind a chain's first one, of which the last has the buffer id (2.8.6).
    /// Returns how many slots the chain has.
    private func walkRest(
        behind head: PackedPlace, into chain: DescriptorChain
    ) throws(GuestFault) -> UInt16 {
        var place = head
        var slots: UInt16 = 1
        while slots < size {
            place.advance(by: 1, size: size)
            slots &+= 1
            let offset = Int(place.index) &* Descriptor.byteCount
            let entry = Descriptor(
                packed: descriptors.load64(offset), descriptors.load64(offset &+ 8))
            guard !entry.has(Descriptor.Flag.indirect) else { throw entry.tableFault }
            try chain.add(entry, in: memory)
            if !entry.has(Descriptor.Flag.next) {
                chain.rename(entry.link)
                return slots
            }
        }
        throw GuestFault("descriptor chain longer than the queue", UInt64(head.index))
    }

    /// All of the table is the request, in order; of flags only WRITE counts there (2.8.7).
    private func walkPacked(indirect table: Descriptor, into chain: DescriptorChain)
        throws(GuestFault)
    {
        guard allowsIndirect else { throw table.tableFault }
        let count = try table.tableCount(ringSize: size)
        for index in 0..<count {
            guard
                let address = table.address.advanced(by: index &* UInt64(Descriptor.byteCount)),
                let pair = memory.loadPair(at: address)
            else { throw GuestFault("indirect table outside memory", table.address.rawValue) }
            try chain.add(Descriptor(packed: pair.low, pair.high), in: memory)
        }
    }

    // MARK: giving them back

    func pushPacked(_ chain: DescriptorChain, written: UInt32) {
        var next = PackedPlace(nextUsed)
        // WRITE says that the length counts (2.8.4).
        let flags = (next.wrap ? Lap.both : 0) | (written > 0 ? Descriptor.Flag.write : 0)
        descriptors.storeRelease64(
            Int(next.index) &* Descriptor.byteCount &+ 8,
            UInt64(written) | UInt64(chain.head) << 32 | UInt64(flags) << 48)
        next.advance(by: chain.slots, size: size)
        nextUsed = next.bits
        slotsInFlight &-= chain.slots
        unnotified &+= Int(chain.slots)
    }

    /// Whether the driver wants to hear of what is unnotified.
    var wantsInterruptPacked: Bool {
        let events = driverArea.load32(0)
        switch events & Events.mask {
        case Events.disable: return false
        case Events.atDescriptor where usesEventIndex:
            // The event's slot is one of those pushed: at most so far behind the next one.
            let event = PackedPlace(UInt16(truncatingIfNeeded: events))
            let behind = PackedPlace(nextUsed).distance(from: event, size: size)
            return behind > 0 && behind <= unnotified
        default: return true
        }
    }

    // MARK: doorbells

    func suppressDoorbellPacked() { deviceArea.store32(0, Events.disable) }

    func armDoorbellPacked() {
        deviceArea.store32(0, usesEventIndex ? UInt32(nextAvailable) | Events.atDescriptor : 0)
    }
}
