import VMMBase
import VMMHost
import VMMVirtIO

/// The scenarios as they are in a packed ring. Where the format has no such thing, the nearest.
extension VirtIODeviceContract {
    func preparePacked(_ scenario: Scenario, _ driver: FakeDriver, _ queue: FakePackedQueue) {
        let good = driver.writable(64)
        switch scenario {
        case .empty: break
        case .zeroLength:
            queue.add([FakeQueue.Buffer(good.address, 0, isWritable: true)])
            queue.add([FakeQueue.Buffer(good.address, 0, isWritable: false)])
        case .unmapped:
            queue.add([FakeQueue.Buffer(FakeDriver.unmapped, 64, isWritable: true)])
        case .wrapping:
            queue.add([FakeQueue.Buffer(GuestAddress(.max - 8), .max, isWritable: true)])
        case .writableBeforeReadable: queue.add([good, driver.readable([1, 2, 3])])
        case .hugeWritable: queue.add(huge(driver, queue, isWritable: true))
        case .hugeReadable: queue.add(huge(driver, queue, isWritable: false))
        case .looping, .overLong, .nextBeyondSize: fill(queue, good, FakePackedQueue.Lap.available)
        case .indexRanAhead: fill(queue, good, .max)
        case .headBeyondSize:
            queue.write(
                FakeQueue.Descriptor(
                    address: good.address.rawValue, count: 8,
                    flags: FakePackedQueue.Lap.available | FakeQueue.Descriptor.isWritable),
                id: .max, at: 0)
        default: queue.addDescriptors([table(scenario, driver, good)])
        }
        queue.publish()
    }

    /// Every slot goes on in the next one.
    private func fill(_ queue: FakePackedQueue, _ good: FakeQueue.Buffer, _ flags: UInt16) {
        typealias Descriptor = FakeQueue.Descriptor
        for slot in 0..<queue.layout.size {
            queue.write(
                Descriptor(
                    address: good.address.rawValue, count: 8,
                    flags: flags | Descriptor.hasNext | Descriptor.isWritable),
                id: slot, at: slot)
        }
    }

    /// A table of two entries, and the descriptor that names it.
    private func table(
        _ scenario: Scenario, _ driver: FakeDriver, _ good: FakeQueue.Buffer
    ) -> FakeQueue.Descriptor {
        typealias Descriptor = FakeQueue.Descriptor
        let table = driver.writable(4096)
        var outer = Descriptor(
            address: table.address.rawValue, count: 32, flags: Descriptor.isIndirect)
        switch scenario {
        case .indirectEmpty: outer.count = 0
        case .indirectUnaligned: outer.count = 17
        case .indirectUnmapped: outer.address = FakeDriver.unmapped.rawValue
        case .indirectTooLarge: outer.count = .max - 15
        case .indirectWithNext: outer.flags |= Descriptor.hasNext
        default: break
        }
        var inner = ByteBuilder()
        for _ in 0..<2 {
            inner.append(good.address.rawValue)
            inner.append(UInt32(8))
            // An id and flags that a device must not look at, but for WRITE.
            inner.append(UInt16.max)
            inner.append(UInt16.max)
        }
        _ = driver.memory.copyIn(inner.bytes, at: table.address)
        return outer
    }
}
