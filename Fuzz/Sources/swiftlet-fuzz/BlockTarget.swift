import VMMBase
import VMMDevices
import VMMHost
import VMMStorage
import VMMTestSupport
import VMMVirtIO

/// The input is what a driver does to a block device: memory, descriptors and ring indices, right
/// ones and wrong ones.
enum BlockTarget: FuzzTarget {
    static let name = "block"

    static let words = [0, 1, 4, 8, 11, 13].map { FuzzInput.bytes(UInt32($0)) }

    private enum Step: UInt8, CaseIterable {
        case request, descriptor, offer, publish, memory, reset
    }

    private static let queueSize: UInt16 = 16
    private static let diskByteCount: UInt64 = 64 << 10
    /// Above the queues: where requests have their headers, data and status bytes.
    private static let room: UInt64 = 2 << 20
    private static let stepLimit = 64

    static func seeds() -> [[UInt8]] {
        [0, 1].map { image in
            [0, 1, 4, 8, 11, 13, 2].reduce([UInt8(image)]) { seed, type in
                let isRead = type != 1 && type != 11 && type != 13
                let payload =
                    FuzzInput.bytes(UInt64(1)) + FuzzInput.bytes(UInt32(2)) + [0, 0, 0, 0]
                return seed + [Step.memory.rawValue, 1, 16] + payload
                    + [Step.request.rawValue, UInt8(type)] + FuzzInput.bytes(UInt64(3))
                    + [1, isRead ? 1 : 0] + FuzzInput.bytes(UInt32(type > 10 ? 16 : 512))
                    + [Step.publish.rawValue]
            }
        }
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let flags = input.next(UInt8.self)
        do {
            let disk = try disk(flags)
            let device = VirtIOBlock(
                id: "fuzz", disk: disk, queueSizes: [queueSize], serial: nil, clock: SystemClock())
            let features = Feature.version1 | (flags & 4 == 0 ? Feature.indirectDescriptors : 0)
            let driver = try FakeDriver(device, features: features)
            // The first fault is the end of a device until its reset.
            try? drive(driver, &input)
            device.quiesce()
            _ = disk.close()
        } catch {
            return
        }
    }

    private static func disk(_ flags: UInt8) throws -> Disk {
        let file = FuzzFile()
        var options = DiskOptions()
        options.image.format = flags & 2 == 0 ? .raw : nil
        options.isSparse = flags & 8 == 0
        guard flags & 1 != 0 else {
            try file.resize(to: diskByteCount)
            return try Disk(RawImage(file), options)
        }
        try QCOW2Image.create(on: file, QCOW2CreateOptions(byteCount: diskByteCount))
        return try Disk(QCOW2Image(file, options.image), options)
    }

    private static func drive(_ driver: FakeDriver, _ input: inout FuzzInput) throws {
        var requests = DriverRequests()
        for _ in 0..<stepLimit where !input.isEmpty {
            let queue = driver.queues[0]
            switch Step.allCases[Int(input.next(UInt8.self)) % Step.allCases.count] {
            case .request: requests.add(&input, driver)
            case .descriptor:
                let index = UInt16(input.next(UInt8.self)) % queueSize
                queue.write(requests.descriptor(&input), at: index)
            case .offer: queue.offer(input.next())
            case .publish:
                if input.next(UInt8.self) == 0xff {
                    queue.publish(index: input.next())
                } else {
                    queue.publish()
                }
                try driver.device.service(queue: 0)
                try driver.settle()
            case .memory:
                let offset = UInt64(input.next(UInt8.self)) << 9
                let bytes = input.take(Int(input.next(UInt8.self)))
                _ = driver.memory.copyIn(bytes, at: GuestAddress(room + offset))
            case .reset:
                driver.device.quiesce()
                try driver.activate()
                requests = DriverRequests()
            }
        }
    }

    /// Puts requests and descriptors together.
    private struct DriverRequests {
        private var next: UInt16 = 0

        /// A request of a header, up to three buffers and a status byte.
        mutating func add(_ input: inout FuzzInput, _ driver: FakeDriver) {
            let queue = driver.queues[0]
            let head = next
            let header = room + 512 * UInt64(head)
            var bytes = ByteBuilder()
            bytes.append(UInt32(input.next(UInt8.self)))
            bytes.append(UInt32(0))
            bytes.append(input.next(UInt64.self))
            _ = driver.memory.copyIn(bytes.bytes, at: GuestAddress(header))
            chain(queue, header, 16, flags: FakeQueue.Descriptor.hasNext)
            for _ in 0..<input.next(UInt8.self) % 4 {
                let writable = input.next(UInt8.self) % 2 * 2
                chain(
                    queue, room + 512, input.next(),
                    flags: FakeQueue.Descriptor.hasNext | UInt16(writable))
            }
            chain(queue, header + 16, 1, flags: FakeQueue.Descriptor.isWritable)
            queue.offer(head)
        }

        private mutating func chain(
            _ queue: FakeQueue, _ address: UInt64, _ count: UInt32, flags: UInt16
        ) {
            let index = next
            next = (next + 1) % queueSize
            queue.write(
                FakeQueue.Descriptor(address: address, count: count, flags: flags, next: next),
                at: index)
        }

        /// Any descriptor; most of them point into memory.
        func descriptor(_ input: inout FuzzInput) -> FakeQueue.Descriptor {
            let page = UInt64(input.next(UInt16.self))
            return FakeQueue.Descriptor(
                address: page & 0x8000 == 0 ? room + page * 16 : page << 48 | page,
                count: input.next(), flags: input.next(), next: UInt16(input.next(UInt8.self)))
        }
    }
}
