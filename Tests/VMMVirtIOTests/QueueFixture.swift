import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// A queue and its driver in RAM that has a hole: [0, 1 MiB) and [4 MiB, 5 MiB).
struct QueueFixture {
    static let regionByteCount: UInt64 = 1 << 20
    static let secondRegion: UInt64 = 4 << 20
    /// Where tests put buffers and indirect tables; the rings lie below.
    static let buffers = GuestAddress(0x8_0000)
    static let size: UInt16 = 8

    let memory: GuestMemory
    let driver: FakeQueue
    let queue: VirtQueue
    let chain: DescriptorChain

    init(
        features: UInt64 = Feature.version1 | Feature.indirectDescriptors,
        size: UInt16 = QueueFixture.size
    ) throws {
        memory = try Self.makeMemory()
        driver = try FakeQueue.make(
            memory: memory, base: GuestAddress(4096), size: size, features: features)
        queue = try VirtQueue(
            driver.layout, memory: memory, features: features, interrupt: driver.interrupt,
            doorbell: driver.doorbell)
        chain = try queue.makeChains(1)[0]
    }

    static func makeMemory() throws -> GuestMemory {
        let starts = [0, secondRegion]
        return try GuestMemory(
            ranges: starts.compactMap {
                GuestRange(start: GuestAddress($0), count: regionByteCount)
            }, usesHugePages: false)
    }

    func buffer(_ count: UInt32, isWritable: Bool, offset: UInt64 = 0) -> FakeQueue.Buffer {
        FakeQueue.Buffer(
            GuestAddress(Self.buffers.rawValue + offset), count, isWritable: isWritable)
    }

    /// Takes one request and gives it back.
    func serveOne() throws -> Bool {
        guard try queue.pop(into: chain) else { return false }
        queue.push(chain, written: 1)
        return true
    }

    /// Puts a table of these descriptors where `buffers` begin, and offers it.
    func offerIndirect(
        _ entries: [FakeQueue.Descriptor], count: UInt32? = nil, flags: UInt16 = 0,
        at address: GuestAddress = QueueFixture.buffers
    ) {
        var table = ByteBuilder()
        for entry in entries { table.append(bytes: entry.bytes) }
        _ = memory.copyIn(table.bytes, at: address)
        driver.write(
            FakeQueue.Descriptor(
                address: address.rawValue, count: count ?? UInt32(16 * entries.count),
                flags: FakeQueue.Descriptor.isIndirect | flags),
            at: 0)
        driver.offer(0)
        driver.publish()
    }
}
