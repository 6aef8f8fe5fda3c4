import VMMBase
import VMMHost
import VMMVirtIO

/// What every virtio device must bear from a hostile driver: a fault or an answer, and a device
/// that works again after a reset. A trap or a hang fails the test run by itself.
package struct VirtIODeviceContract {
    /// One way to break the rules on one queue.
    package enum Scenario: CaseIterable, Sendable {
        case empty, zeroLength, looping, overLong, unmapped, wrapping, writableBeforeReadable
        case nextBeyondSize, headBeyondSize, indexRanAhead
        case indirectNested, indirectLooping, indirectBeyondTable, indirectEmpty, indirectUnaligned
        case indirectUnmapped, indirectTooLarge, indirectWithNext, hugeWritable, hugeReadable

        /// Scenarios that break the ring's own rules, so that a fault is the only right outcome.
        package var mustFault: Bool {
            switch self {
            case .empty, .zeroLength, .hugeWritable, .hugeReadable: false
            default: true
            }
        }

        /// The same for a packed ring, where ids are the driver's own affair, and tables have
        /// neither links nor levels.
        package var mustFaultPacked: Bool {
            switch self {
            case .headBeyondSize, .indexRanAhead, .indirectNested, .indirectLooping,
                .indirectBeyondTable:
                false
            default: mustFault
            }
        }
    }

    private let makeDevice: () throws -> any VirtIODevice

    /// `makeDevice` makes the device under test, each time anew. It should have something to do on
    /// each queue (a console: input), or it need not look at what the driver offers.
    package init(_ makeDevice: @escaping () throws -> any VirtIODevice) {
        self.makeDevice = makeDevice
    }

    /// Plays the scenario on each queue, in both formats; returns what went wrong, one sentence
    /// each.
    package func violations(_ scenario: Scenario) throws -> [String] {
        try violations(scenario, mustFault: scenario.mustFault, format: 0)
            + violations(
                scenario, mustFault: scenario.mustFaultPacked, format: Feature.packedRing
            ).map { "packed " + $0 }
    }

    private func violations(
        _ scenario: Scenario, mustFault: Bool, format: UInt64
    ) throws -> [String] {
        var found: [String] = []
        for index in try makeDevice().queueSizes.indices {
            let driver = try FakeDriver(
                try makeDevice(),
                features: Feature.version1 | Feature.indirectDescriptors | format)
            let queue = driver.queues[index]
            if let queue = queue as? FakePackedQueue {
                preparePacked(scenario, driver, queue)
            } else {
                prepare(scenario, driver, queue)
            }
            let hasFaulted = faults { () throws(GuestFault) in
                try driver.device.service(queue: index)
                try driver.settle()
            }
            if mustFault, !hasFaulted {
                found.append("queue \(index): \(scenario) was no fault")
            }
            found += try revival(driver, index).map { "queue \(index), \(scenario): \($0)" }
        }
        return found
    }

    /// After the reset the device has no queues, and works again with new ones.
    private func revival(_ driver: FakeDriver, _ index: Int) throws -> [String] {
        var found: [String] = []
        driver.device.quiesce()
        driver.device.quiesce()
        let before = driver.queues[index].takeUsed().count
        if faults({ () throws(GuestFault) in try driver.ring(index) }) {
            found.append("a device without queues faulted")
        }
        if driver.queues[index].takeUsed().count != 0 {
            found.append("a device without queues answered, after \(before) answers")
        }
        try driver.activate()
        driver.device.drain()
        if faults({ () throws(GuestFault) in
            try driver.ring(index)
            try driver.settle()
        }) {
            found.append("a device that was activated again faulted on an empty queue")
        }
        return try found + queueRevival(driver, index)
    }

    /// The same for one queue, while the device keeps the others.
    private func queueRevival(_ driver: FakeDriver, _ index: Int) throws -> [String] {
        var found: [String] = []
        driver.queues[index].add([driver.writable(64)])
        driver.device.quiesce(queue: index)
        driver.device.quiesce(queue: index)
        let isFaulty = faults { () throws(GuestFault) in
            for queue in driver.queues.indices { try driver.ring(queue) }
            try driver.settle()
        }
        if isFaulty { found.append("a device without one queue faulted") }
        if driver.queues[index].takeUsed().count != 0 {
            found.append("a queue that the device gave up was answered")
        }
        try driver.activate(queue: index)
        let isFaultyAgain = faults { () throws(GuestFault) in
            for queue in driver.queues.indices { try driver.ring(queue) }
            try driver.settle()
        }
        if isFaultyAgain { found.append("a queue that came back was a fault") }
        return found
    }

    private func faults(_ body: () throws(GuestFault) -> Void) -> Bool {
        do throws(GuestFault) {
            try body()
            return false
        } catch {
            return true
        }
    }

    private func prepare(_ scenario: Scenario, _ driver: FakeDriver, _ queue: FakeQueue) {
        switch scenario {
        case .empty, .zeroLength, .looping, .overLong, .unmapped, .wrapping,
            .writableBeforeReadable, .nextBeyondSize, .headBeyondSize, .indexRanAhead:
            prepareDirect(scenario, driver, queue)
        case .hugeWritable: queue.add(huge(driver, queue, isWritable: true))
        case .hugeReadable: queue.add(huge(driver, queue, isWritable: false))
        default: prepareIndirect(scenario, driver, queue)
        }
        if scenario != .indexRanAhead { queue.publish() }
    }

    /// As many megabytes as a chain can name: every descriptor stands for the same one.
    func huge(
        _ driver: FakeDriver, _ queue: FakeQueue, isWritable: Bool
    ) -> [FakeQueue.Buffer] {
        let buffer = driver.buffer(1 << 20, isWritable: isWritable)
        return Array(repeating: buffer, count: Int(queue.layout.size))
    }

    private func prepareDirect(
        _ scenario: Scenario, _ driver: FakeDriver, _ queue: FakeQueue
    ) {
        typealias Descriptor = FakeQueue.Descriptor
        let good = driver.writable(64)
        let address = good.address.rawValue
        let size = queue.layout.size
        let chained = Descriptor.hasNext | Descriptor.isWritable
        switch scenario {
        case .zeroLength:
            queue.add([FakeQueue.Buffer(good.address, 0, isWritable: true)])
            queue.add([FakeQueue.Buffer(good.address, 0, isWritable: false)])
        case .looping:
            queue.write(Descriptor(address: address, count: 8, flags: chained, next: 1), at: 0)
            queue.write(Descriptor(address: address, count: 8, flags: chained, next: 0), at: 1)
            queue.offer(0)
        case .overLong:
            for index in 0..<size {
                queue.write(
                    Descriptor(
                        address: address, count: 8, flags: chained, next: (index + 1) % size),
                    at: index)
            }
            queue.offer(0)
        case .unmapped:
            queue.add([FakeQueue.Buffer(FakeDriver.unmapped, 64, isWritable: true)])
        case .wrapping:
            queue.add([FakeQueue.Buffer(GuestAddress(.max - 8), .max, isWritable: true)])
        case .writableBeforeReadable:
            queue.add([good, driver.readable([1, 2, 3])])
        case .nextBeyondSize:
            queue.write(Descriptor(address: address, count: 8, flags: chained, next: size), at: 0)
            queue.offer(0)
        case .headBeyondSize: queue.offer(.max)
        case .indexRanAhead: queue.publish(index: size + 1)
        default: break
        }
    }

    private func prepareIndirect(
        _ scenario: Scenario, _ driver: FakeDriver, _ queue: FakeQueue
    ) {
        typealias Descriptor = FakeQueue.Descriptor
        let good = driver.writable(64)
        let table = driver.writable(4096)
        let chained = Descriptor.hasNext | Descriptor.isWritable
        var outer = Descriptor(
            address: table.address.rawValue, count: 32, flags: Descriptor.isIndirect)
        var inner = Descriptor(address: good.address.rawValue, count: 8, flags: chained, next: 0)
        switch scenario {
        case .indirectNested: inner.flags = Descriptor.isIndirect
        case .indirectBeyondTable: inner.next = 2
        case .indirectEmpty: outer.count = 0
        case .indirectUnaligned: outer.count = 17
        case .indirectUnmapped: outer.address = FakeDriver.unmapped.rawValue
        case .indirectTooLarge: outer.count = .max - 15
        case .indirectWithNext: outer.flags |= Descriptor.hasNext
        default: break
        }
        _ = driver.memory.copyIn(inner.bytes, at: table.address)
        queue.write(outer, at: 0)
        queue.offer(0)
    }
}
