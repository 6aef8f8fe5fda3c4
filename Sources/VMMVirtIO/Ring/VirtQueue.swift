import VMMBase
import VMMHost

/// Tells the driver that a queue has used buffers. Any thread.
package protocol QueueInterrupt: AnyObject, Sendable {
    func signal()
    /// Signals when `sink` next hands work to the kernel.
    func signal(through sink: any EventSink)
}

extension QueueInterrupt {
    package func signal(through sink: any EventSink) { signal() }
}

/// A virtqueue of either format (VirtIO 1.3, 2.7 and 2.8), the device's side. One thread at a
/// time: the device's loop. The hot path of all I/O: see docs/HOT-PATHS.md.
package final class VirtQueue {
    /// Where the driver put a queue, and how large it made it.
    package struct Layout: Equatable, Sendable {
        package var size: UInt16 = 0
        package var descriptors = GuestAddress(0)
        package var driverArea = GuestAddress(0)
        package var deviceArea = GuestAddress(0)

        package init() {}
    }

    /// How far the device is: a queue with nothing in flight goes on from here in another life.
    package struct Position: Equatable, Sendable, Codable {
        /// The next request to be taken: a split ring's index of 16 bits; a packed ring's slot,
        /// with the wrap counter in bit 15.
        package var available: UInt16
        /// Where the next request is given back, in the same form.
        package var used: UInt16

        package init(available: UInt16, used: UInt16) {
            self.available = available
            self.used = used
        }

        /// Where the queue of a driver with these features begins.
        package static func start(features: UInt64) -> Position {
            // Wrap counters start at 1 (2.8.1).
            let first: UInt16 = features & Feature.packedRing != 0 ? 0x8000 : 0
            return Position(available: first, used: first)
        }
    }

    /// Both formats allow that many descriptors (2.7, 2.8.10.1).
    package static let largestSize = 32768

    package let size: UInt16
    /// The format that was negotiated.
    package let isPacked: Bool
    let memory: GuestMemory
    let descriptors: GuestWindow
    let driverArea: GuestWindow
    let deviceArea: GuestWindow
    let usesEventIndex: Bool
    let allowsIndirect: Bool
    private let interrupt: any QueueInterrupt
    private let doorbell: EventFD
    /// What takes interrupts along to the kernel; nil: each goes on its own.
    package var interruptSink: (any EventSink)?

    // Both in the form of `Position`.
    var nextAvailable: UInt16
    var nextUsed: UInt16
    /// Slots pushed since the driver was last considered for an interrupt.
    var unnotified = 0
    /// Slots of a packed ring's requests that were popped and not pushed.
    var slotsInFlight: UInt16 = 0

    /// A queue in the negotiated format, at its start or at `position`. Fails when the size or an
    /// address breaks the rules (a split ring's size is a power of two, and its areas are aligned
    /// to 16, 2 and 4 bytes; a packed ring's may be any from 1 on, and they to 16, 4 and 4).
    package init(
        _ layout: Layout, memory: GuestMemory, features: UInt64, interrupt: any QueueInterrupt,
        doorbell: EventFD, from position: Position? = nil
    ) throws(GuestFault) {
        let position = position ?? .start(features: features)
        isPacked = features & Feature.packedRing != 0
        let areas =
            isPacked
            ? try Self.packedAreas(layout, memory) : try Self.splitAreas(layout, memory)
        if isPacked { slotsInFlight = try Self.slotsInFlight(position, layout.size) }
        size = layout.size
        self.memory = memory
        descriptors = areas.descriptors
        driverArea = areas.driver
        deviceArea = areas.device
        usesEventIndex = features & Feature.eventIndex != 0
        allowsIndirect = features & Feature.indirectDescriptors != 0
        nextAvailable = position.available
        nextUsed = position.used
        self.interrupt = interrupt
        self.doorbell = doorbell
    }

    /// Where a queue's three areas are in RAM.
    struct Areas {
        let descriptors: GuestWindow
        let driver: GuestWindow
        let device: GuestWindow
    }

    /// Chains to pop requests into: as many as the device keeps in flight at once.
    package func makeChains(_ count: Int) throws(HostError) -> [DescriptorChain] {
        try DescriptorChain.make(count, size: size)
    }

    /// Where the device is now.
    package var position: Position { Position(available: nextAvailable, used: nextUsed) }

    // MARK: requests

    /// True when the driver has offered requests that were not taken yet.
    package var hasAvailable: Bool { isPacked ? hasAvailablePacked : hasAvailableSplit }

    /// Takes the next request into `chain`; false when there is none.
    package func pop(into chain: DescriptorChain) throws(GuestFault) -> Bool {
        isPacked ? try popPacked(into: chain) : try popSplit(into: chain)
    }

    /// Gives a request back with `written` bytes of its writable memory filled. The driver sees
    /// it at once and is interrupted by the next `notify`. Once for each `pop`.
    package func push(_ chain: DescriptorChain, written: UInt32) {
        if isPacked {
            pushPacked(chain, written: written)
        } else {
            pushSplit(chain, written: written)
        }
    }

    /// Interrupts the driver if it wants that for what was pushed since the last call.
    package func notify() {
        guard unnotified != 0 else { return }
        // The driver may enable interrupts while we push: that must be out before we look.
        GuestWindow.fullBarrier()
        let isWanted = isPacked ? wantsInterruptPacked : wantsInterruptSplit
        unnotified = 0
        guard isWanted else { return }
        if let interruptSink {
            interrupt.signal(through: interruptSink)
        } else {
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
        if usesEventIndex { return }
        if isPacked { suppressDoorbellPacked() } else { suppressDoorbellSplit() }
    }

    /// Asks the driver to ring for the next request. True when one came in meanwhile, for which
    /// it will not ring: look again.
    package func armDoorbell() -> Bool {
        if isPacked { armDoorbellPacked() } else { armDoorbellSplit() }
        GuestWindow.fullBarrier()
        return hasAvailable
    }
}
