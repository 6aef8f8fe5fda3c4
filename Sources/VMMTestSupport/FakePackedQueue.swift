import VMMBase
import VMMHost
import VMMVirtIO

/// The driver's side of one packed queue (VirtIO 1.3, 2.8). Requests have ids that count up, and
/// slots are used lap after lap: `add` takes no more than the device has given back.
package final class FakePackedQueue: FakeQueue {
    /// Flags of a packed descriptor beside those of `Descriptor` (2.8.13).
    package enum Lap {
        package static let available: UInt16 = 1 << 7
        package static let used: UInt16 = 1 << 15
    }

    /// What an event suppression structure asks for (2.8.14).
    package enum Events: UInt16 {
        case enable = 0
        case disable = 1
        case atDescriptor = 2
    }

    private struct Place {
        var index: UInt16 = 0
        var wrap = true

        mutating func advance(by count: Int, size: UInt16) {
            let sum = Int(index) + count
            if sum >= Int(size) { wrap.toggle() }
            index = UInt16(sum % Int(size))
        }
    }

    private var free = Place()
    private var unused = Place()
    private var nextID: UInt16 = 0
    /// How many slots each request has that the device was given.
    private var slots: [UInt16: Int] = [:]
    /// First flags that `publish` writes, which makes the request visible.
    private var unpublished: [(slot: UInt16, flags: UInt16)] = []

    /// A queue at `base` (a multiple of 16), whose memory is zero.
    package convenience init(memory: GuestMemory, base: GuestAddress, size: UInt16) throws {
        var layout = VirtQueue.Layout()
        layout.size = size
        layout.descriptors = base
        layout.driverArea = Self.address(base, 16 * UInt64(size))
        layout.deviceArea = Self.address(base, 16 * UInt64(size) + 4)
        try self.init(memory: memory, layout: layout)
    }

    // MARK: requests

    @discardableResult
    package override func add(_ buffers: [Buffer]) -> UInt16 {
        addDescriptors(
            buffers.map { buffer in
                Descriptor(
                    address: buffer.address.rawValue, count: buffer.count,
                    flags: buffer.isWritable ? Descriptor.isWritable : 0)
            })
    }

    @discardableResult
    package override func addIndirect(_ buffers: [Buffer], table: GuestAddress) -> UInt16 {
        for (index, buffer) in buffers.enumerated() {
            let entry = Descriptor(
                address: buffer.address.rawValue, count: buffer.count,
                flags: buffer.isWritable ? Descriptor.isWritable : 0)
            store(Self.bytes(entry, id: 0xdead), at: Self.address(table, 16 * UInt64(index)))
        }
        return addDescriptors([
            Descriptor(
                address: table.rawValue, count: UInt32(16 * buffers.count),
                flags: Descriptor.isIndirect)
        ])
    }

    /// Adds a request of these descriptors, right or wrong, linked by NEXT (`next` is not used).
    /// Only the last one has the id; the others have one that must not be looked at.
    @discardableResult
    package func addDescriptors(_ descriptors: [Descriptor]) -> UInt16 {
        let id = nextID
        nextID = (nextID + 1) % layout.size
        slots[id] = descriptors.count
        for (index, descriptor) in descriptors.enumerated() {
            let isLast = index == descriptors.count - 1
            var entry = descriptor
            entry.flags |= free.wrap ? Lap.available : Lap.used
            if !isLast { entry.flags |= Descriptor.hasNext }
            if index == 0 {
                unpublished.append((free.index, entry.flags))
                entry.flags = free.wrap ? 0 : Lap.both
            }
            write(entry, id: isLast ? id : 0xdead, at: free.index)
            free.advance(by: 1, size: layout.size)
        }
        return id
    }

    /// Writes one descriptor, flags and all, right or wrong.
    package func write(_ descriptor: Descriptor, id: UInt16, at slot: UInt16) {
        store(Self.bytes(descriptor, id: id), at: address(of: slot))
    }

    private func address(of slot: UInt16) -> GuestAddress {
        Self.address(layout.descriptors, 16 * UInt64(slot))
    }

    private static func bytes(_ descriptor: Descriptor, id: UInt16) -> [UInt8] {
        var builder = ByteBuilder()
        builder.append(descriptor.address)
        builder.append(descriptor.count)
        builder.append(id)
        builder.append(descriptor.flags)
        return builder.bytes
    }

    package override func publish() {
        for (slot, flags) in unpublished {
            store(flags, at: Self.address(address(of: slot), 14))
        }
        unpublished = []
    }

    /// Slots are used again as the device gives them back: nothing to do.
    package override func recycle() {}

    // MARK: answers

    package override func takeUsed() -> [Completion] {
        var completions: [Completion] = []
        while true {
            let address = address(of: unused.index)
            let flags = load16(at: Self.address(address, 14))
            let isUsed = flags & Lap.both == (unused.wrap ? Lap.both : 0)
            let id = load16(at: Self.address(address, 12))
            guard isUsed, let count = slots.removeValue(forKey: id) else { return completions }
            completions.append(
                Completion(
                    head: UInt32(id), written: load32(at: Self.address(address, 8))))
            unused.advance(by: count, size: layout.size)
        }
    }

    package override var isDoorbellSuppressed: Bool {
        load16(at: Self.address(layout.deviceArea, 2)) == Events.disable.rawValue
    }

    /// The slot and wrap counter (bit 15) at which the device wants a notification.
    package override var doorbellEvent: UInt16 { load16(at: layout.deviceArea) }

    /// What the device asks for.
    package var doorbellEvents: Events? {
        Events(rawValue: load16(at: Self.address(layout.deviceArea, 2)))
    }

    package override func suppressInterrupts(_ on: Bool) {
        setInterruptEvents(0, on ? .disable : .enable)
    }

    /// Asks for an interrupt once the device passes this slot and wrap counter (bit 15).
    package override func setInterruptEvent(_ index: UInt16) {
        setInterruptEvents(index, .atDescriptor)
    }

    private func setInterruptEvents(_ event: UInt16, _ flags: Events) {
        store(event, at: layout.driverArea)
        store(flags.rawValue, at: Self.address(layout.driverArea, 2))
    }
}

extension FakePackedQueue.Lap {
    static let both = available | used
}
