import Synchronization
import VMMBase
import VMMHost
import VMMVirtIO

/// The driver's side of one split queue (VirtIO 1.3, 2.7), which obeys the rules or breaks them as
/// a test wishes; `FakePackedQueue` is that of a packed one. Descriptors are handed out in order
/// and not taken back: a test that needs more than the queue has asks for a larger queue or for
/// `recycle`.
package class FakeQueue {
    /// A piece of guest memory in a request.
    package struct Buffer: Equatable, Sendable {
        package var address: GuestAddress
        package var count: UInt32
        package var isWritable: Bool

        package init(_ address: GuestAddress, _ count: UInt32, isWritable: Bool) {
            self.address = address
            self.count = count
            self.isWritable = isWritable
        }
    }

    /// A request that the device gave back.
    package struct Completion: Equatable, Sendable {
        package let head: UInt32
        package let written: UInt32

        package init(head: UInt32, written: UInt32) {
            self.head = head
            self.written = written
        }
    }

    /// A descriptor as it lies in memory.
    package struct Descriptor: Sendable {
        package var address: UInt64
        package var count: UInt32
        package var flags: UInt16
        package var next: UInt16

        package static let hasNext: UInt16 = 1
        package static let isWritable: UInt16 = 2
        package static let isIndirect: UInt16 = 4

        package init(address: UInt64, count: UInt32, flags: UInt16 = 0, next: UInt16 = 0) {
            self.address = address
            self.count = count
            self.flags = flags
            self.next = next
        }

        /// The 16 bytes of it.
        package var bytes: [UInt8] {
            var builder = ByteBuilder()
            builder.append(address)
            builder.append(count)
            builder.append(flags)
            builder.append(next)
            return builder.bytes
        }
    }

    /// Counts the device's interrupts. Any thread.
    package final class Interrupt: QueueInterrupt {
        private let signals = Mutex(0)

        package init() {}

        package func signal() { signals.withLock { $0 += 1 } }
        package var count: Int { signals.withLock { $0 } }
    }

    package let layout: VirtQueue.Layout
    package let interrupt = Interrupt()
    /// Raised by a device that wants another turn.
    package let doorbell: EventFD
    let memory: GuestMemory
    private var nextDescriptor: UInt16 = 0
    private var offered: UInt16 = 0
    private var taken: UInt16 = 0

    /// Bytes of guest memory that a queue of `size` needs, rounded up to pages.
    package static func byteCount(size: UInt16) -> UInt64 {
        (usedOffset(size) + 6 + 8 * UInt64(size) + 4095) / 4096 * 4096
    }

    private static func availableOffset(_ size: UInt16) -> UInt64 { 16 * UInt64(size) }
    private static func usedOffset(_ size: UInt16) -> UInt64 {
        (availableOffset(size) + 6 + 2 * UInt64(size) + 3) / 4 * 4
    }

    /// A queue at `base` (a multiple of 16), whose memory is zero.
    package convenience init(memory: GuestMemory, base: GuestAddress, size: UInt16) throws {
        var layout = VirtQueue.Layout()
        layout.size = size
        layout.descriptors = base
        layout.driverArea = Self.address(base, Self.availableOffset(size))
        layout.deviceArea = Self.address(base, Self.usedOffset(size))
        try self.init(memory: memory, layout: layout)
    }

    init(memory: GuestMemory, layout: VirtQueue.Layout) throws {
        self.memory = memory
        self.layout = layout
        doorbell = try EventFD()
    }

    /// A queue of the format that these features mean.
    package static func make(
        memory: GuestMemory, base: GuestAddress, size: UInt16, features: UInt64
    ) throws -> FakeQueue {
        features & Feature.packedRing == 0
            ? try FakeQueue(memory: memory, base: base, size: size)
            : try FakePackedQueue(memory: memory, base: base, size: size)
    }

    static func address(_ base: GuestAddress, _ offset: UInt64) -> GuestAddress {
        GuestAddress(base.rawValue + offset)
    }

    // MARK: requests

    /// Adds a request of these buffers, not visible to the device yet; returns its head.
    @discardableResult
    package func add(_ buffers: [Buffer]) -> UInt16 {
        let head = nextDescriptor
        for (index, buffer) in buffers.enumerated() {
            write(
                Self.descriptor(
                    buffer, next: index + 1 < buffers.count ? nextDescriptor + 1 : nil),
                at: nextDescriptor)
            nextDescriptor += 1
        }
        offer(head)
        return head
    }

    /// Adds a request as one descriptor that refers to a table at `table`.
    @discardableResult
    package func addIndirect(_ buffers: [Buffer], table: GuestAddress) -> UInt16 {
        for (index, buffer) in buffers.enumerated() {
            let next = index + 1 < buffers.count ? UInt16(index + 1) : nil
            store(
                Self.descriptor(buffer, next: next).bytes,
                at: Self.address(table, 16 * UInt64(index)))
        }
        let head = nextDescriptor
        write(
            Descriptor(
                address: table.rawValue, count: UInt32(16 * buffers.count),
                flags: Descriptor.isIndirect),
            at: head)
        nextDescriptor += 1
        offer(head)
        return head
    }

    private static func descriptor(_ buffer: Buffer, next: UInt16?) -> Descriptor {
        Descriptor(
            address: buffer.address.rawValue, count: buffer.count,
            flags: (buffer.isWritable ? Descriptor.isWritable : 0)
                | (next == nil ? 0 : Descriptor.hasNext),
            next: next ?? 0)
    }

    /// Writes one descriptor, right or wrong.
    package func write(_ descriptor: Descriptor, at index: UInt16) {
        store(descriptor.bytes, at: Self.address(layout.descriptors, 16 * UInt64(index)))
    }

    /// Puts a head, right or wrong, into the available ring.
    package func offer(_ head: UInt16) {
        let slot = UInt64(offered % layout.size)
        store(head, at: Self.address(layout.driverArea, 4 + 2 * slot))
        offered &+= 1
    }

    /// Makes all that was offered visible.
    package func publish() { publish(index: offered) }

    /// Sets the available index, right or wrong.
    package func publish(index: UInt16) { store(index, at: Self.address(layout.driverArea, 2)) }

    /// Descriptors are handed out from the first one again.
    package func recycle() { nextDescriptor = 0 }

    // MARK: answers

    /// What the device gave back since the last call.
    package func takeUsed() -> [Completion] {
        var completions: [Completion] = []
        while taken != load16(at: Self.address(layout.deviceArea, 2)) {
            let slot = 4 + 8 * UInt64(taken % layout.size)
            completions.append(
                Completion(
                    head: load32(at: Self.address(layout.deviceArea, slot)),
                    written: load32(at: Self.address(layout.deviceArea, slot + 4))))
            taken &+= 1
        }
        return completions
    }

    /// True when the device said, without event index, that it need not be notified.
    package var isDoorbellSuppressed: Bool { load16(at: layout.deviceArea) & 1 != 0 }

    /// The available index after which the device wants a notification, with event index.
    package var doorbellEvent: UInt16 {
        load16(at: Self.address(layout.deviceArea, 4 + 8 * UInt64(layout.size)))
    }

    /// Asks for no interrupts, without event index.
    package func suppressInterrupts(_ on: Bool) {
        store(UInt16(on ? 1 : 0), at: layout.driverArea)
    }

    /// Asks for an interrupt once the device passes this used index, with event index.
    package func setInterruptEvent(_ index: UInt16) {
        store(index, at: Self.address(layout.driverArea, 4 + 2 * UInt64(layout.size)))
    }

    // MARK: memory

    func store(_ value: UInt16, at address: GuestAddress) {
        store([UInt8(truncatingIfNeeded: value), UInt8(value >> 8)], at: address)
    }

    func store(_ bytes: [UInt8], at address: GuestAddress) {
        let fits = memory.copyIn(bytes, at: address)
        precondition(fits, "a fake driver writes inside its memory")
    }

    func load16(at address: GuestAddress) -> UInt16 {
        let bytes = memory.copyOut(address, count: 2) ?? [0, 0]
        return UInt16(bytes[0]) | UInt16(bytes[1]) << 8
    }

    func load32(at address: GuestAddress) -> UInt32 {
        let bytes = memory.copyOut(address, count: 4) ?? [0, 0, 0, 0]
        return bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
}
