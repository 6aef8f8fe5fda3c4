import VMMBase
import VMMHost
import VMMVirtIO

/// A guest driver for any virtio device: some memory, a queue of each kind that the device has,
/// and room for buffers. Activates the device and calls it as a worker would, on the test's thread.
package final class FakeDriver {
    /// Guest memory: RAM from 0 up to here.
    package static let memoryByteCount: UInt64 = 4 << 20
    /// An address that is not RAM.
    package static let unmapped = GuestAddress(1 << 40)
    /// Where buffers begin; queues lie below.
    private static let buffers: UInt64 = 2 << 20

    package let device: any VirtIODevice
    package let features: UInt64
    /// The size of all queues, where the driver does not take the largest.
    private let queueSize: UInt16?
    package let memory: GuestMemory
    package private(set) var queues: [FakeQueue] = []
    private var nextBuffer = FakeDriver.buffers

    /// Ring features only: what a test wants of the device's own it adds. They say, too, which
    /// format the queues have.
    package init(
        _ device: any VirtIODevice,
        features: UInt64 = Feature.version1 | Feature.indirectDescriptors,
        queueSize: UInt16? = nil
    ) throws {
        self.device = device
        self.queueSize = queueSize
        self.features = features
        let range = GuestRange(start: GuestAddress(0), count: Self.memoryByteCount)
        memory = try GuestMemory(ranges: [range].compactMap { $0 })
        try activate()
    }

    /// Gives the device fresh, empty queues, as a driver does after a reset.
    package func activate() throws {
        var base: UInt64 = 4096
        queues = []
        for largest in device.queueSizes {
            let size = queueSize ?? largest
            let count = FakeQueue.byteCount(size: size)
            precondition(base + count <= Self.buffers, "the queues fit below the buffers")
            _ = memory.copyIn(
                Array(repeating: 0, count: Int(count)), at: GuestAddress(base))
            queues.append(
                try FakeQueue.make(
                    memory: memory, base: GuestAddress(base), size: size, features: features))
            base += count
        }
        nextBuffer = Self.buffers
        let deviceQueues = try queues.map { queue -> VirtQueue? in
            try VirtQueue(
                queue.layout, memory: memory, features: features, interrupt: queue.interrupt,
                doorbell: queue.doorbell)
        }
        try device.activate(deviceQueues, features: features)
    }

    /// Gives the device a queue back that it gave up: empty again, and where it was.
    @discardableResult
    package func activate(queue index: Int) throws -> FakeQueue {
        let old = queues[index].layout
        let zeros = Array(repeating: UInt8(0), count: Int(FakeQueue.byteCount(size: old.size)))
        _ = memory.copyIn(zeros, at: old.descriptors)
        let queue = try FakeQueue.make(
            memory: memory, base: old.descriptors, size: old.size, features: features)
        queues[index] = queue
        try device.activate(
            VirtQueue(
                queue.layout, memory: memory, features: features, interrupt: queue.interrupt,
                doorbell: queue.doorbell), at: index)
        return queue
    }

    /// Room for `count` bytes, filled with `bytes` from its start.
    package func buffer(
        _ count: UInt32, isWritable: Bool, bytes: [UInt8] = []
    ) -> FakeQueue.Buffer {
        let address = GuestAddress(nextBuffer)
        nextBuffer += (UInt64(count) + 15) / 16 * 16
        precondition(nextBuffer <= Self.memoryByteCount, "the buffers fit into memory")
        _ = memory.copyIn(bytes, at: address)
        return FakeQueue.Buffer(address, count, isWritable: isWritable)
    }

    /// A buffer that the device reads.
    package func readable(_ bytes: [UInt8]) -> FakeQueue.Buffer {
        buffer(UInt32(bytes.count), isWritable: false, bytes: bytes)
    }

    /// A buffer of zeros that the device writes.
    package func writable(_ count: UInt32) -> FakeQueue.Buffer {
        buffer(count, isWritable: true, bytes: Array(repeating: 0, count: Int(count)))
    }

    /// What a buffer holds now; `count` bytes of it, by default all.
    package func contents(_ buffer: FakeQueue.Buffer, count: UInt32? = nil) -> [UInt8] {
        memory.copyOut(buffer.address, count: Int(count ?? buffer.count)) ?? []
    }

    /// Publishes and rings the bell of one queue.
    package func ring(_ index: Int) throws(GuestFault) {
        queues[index].publish()
        try device.service(queue: index)
    }

    /// Does for the device's own events what the loop does, until there are none. Returns the
    /// number of calls; a device that never comes to rest stops at 1000.
    @discardableResult
    package func settle() throws(GuestFault) -> Int {
        var calls = 0
        while calls < 1000, try wakeOnce() { calls += 1 }
        return calls
    }

    private func wakeOnce() throws(GuestFault) -> Bool {
        var isAwake = false
        for (index, source) in device.wakeSources.enumerated() where source.isReady(.readable) {
            isAwake = true
            try device.wake(source: index)
        }
        for (index, queue) in queues.enumerated() where queue.doorbell.clear() {
            isAwake = true
            try device.service(queue: index)
        }
        return isAwake
    }
}
