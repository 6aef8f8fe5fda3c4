import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// The input is what a driver writes where a split queue's rings are, and what a device does
/// meanwhile.
enum SplitTarget: FuzzTarget {
    static let name = "split"
    static let words = RingFuzz.words

    /// A chain of two, offered; an indirect one.
    static func seeds() -> [[UInt8]] {
        [
            [0, 3] + RingFuzz.descriptor(0, flags: 1, link: 1)
                + RingFuzz.descriptor(1, flags: 2, link: 0)
                + RingFuzz.write(RingFuzz.driverArea, [0, 0, 1, 0, 0, 0]) + RingFuzz.service,
            [0, 3] + RingFuzz.descriptor(0, flags: 4, link: 0)
                + RingFuzz.write(RingFuzz.driverArea, [0, 0, 1, 0, 0, 0]) + RingFuzz.service,
        ]
    }

    static func run(_ input: FuzzInput) { RingFuzz.run(input, format: 0) }
}

/// The same for a packed queue.
enum PackedTarget: FuzzTarget {
    static let name = "packed"
    static let words = RingFuzz.words

    /// A chain of two and an indirect request. Flags lie where a split ring has links.
    static func seeds() -> [[UInt8]] {
        [
            [0, 5] + RingFuzz.descriptor(0, flags: 7, link: 0x81)
                + RingFuzz.descriptor(1, flags: 7, link: 0x82) + RingFuzz.service,
            [0, 5] + RingFuzz.descriptor(0, flags: 1, link: 0x84) + RingFuzz.service,
        ]
    }

    static func run(_ input: FuzzInput) { RingFuzz.run(input, format: Feature.packedRing) }
}

private enum RingFuzz {
    private enum Step: UInt8, CaseIterable {
        case pop, push, notify, arm, suppress, write, descriptor, move
    }

    /// Areas, and the room for buffers and tables behind them.
    private static let descriptors: UInt16 = 0x1000
    static let driverArea: UInt16 = 0x2000
    private static let deviceArea: UInt16 = 0x3000
    private static let room: UInt64 = 0x4000
    private static let memoryByteCount: UInt64 = 64 << 10
    private static let largestSize: UInt16 = 64
    private static let stepLimit = 256

    static let words = [0x80, 0x8000, 0x8080, 1, 2, 4, 0xffff].map { FuzzInput.bytes(UInt16($0)) }

    // Pieces of seeds.

    static let service = [Step.pop, .push, .notify, .arm, .pop].map(\.rawValue)

    static func write(_ address: UInt16, _ bytes: [UInt8]) -> [UInt8] {
        [Step.write.rawValue] + FuzzInput.bytes(address) + [UInt8(bytes.count)] + bytes
    }

    static func descriptor(_ index: UInt8, flags: UInt16, link: UInt16) -> [UInt8] {
        [Step.descriptor.rawValue, index, 0] + FuzzInput.bytes(UInt32(16))
            + FuzzInput.bytes(flags) + FuzzInput.bytes(link)
    }

    static func run(_ input: FuzzInput, format: UInt64) {
        var input = input
        let events = input.next(UInt8.self) & 1 == 0 ? Feature.eventIndex : 0
        let number = UInt16(input.next(UInt8.self))
        var layout = VirtQueue.Layout()
        layout.size = format == 0 ? 1 << (number % 7) : 1 + number % largestSize
        layout.descriptors = GuestAddress(UInt64(descriptors))
        layout.driverArea = GuestAddress(UInt64(driverArea))
        layout.deviceArea = GuestAddress(UInt64(deviceArea))
        do {
            let range = GuestRange(start: GuestAddress(0), count: memoryByteCount)
            let device = try Device(
                layout, GuestMemory(ranges: [range].compactMap { $0 }, usesHugePages: false),
                Feature.version1 | Feature.indirectDescriptors | format | events)
            try device.serve(&input)
        } catch {
            return
        }
    }

    /// The side that is looked into, with up to four requests in flight.
    private final class Device {
        private let layout: VirtQueue.Layout
        private let memory: GuestMemory
        private let features: UInt64
        private let doorbell: EventFD
        private var queue: VirtQueue
        private var free: [DescriptorChain]
        private var popped: [DescriptorChain] = []

        init(_ layout: VirtQueue.Layout, _ memory: GuestMemory, _ features: UInt64) throws {
            self.layout = layout
            self.memory = memory
            self.features = features
            doorbell = try EventFD()
            queue = try VirtQueue(
                layout, memory: memory, features: features, interrupt: FakeQueue.Interrupt(),
                doorbell: doorbell)
            free = try queue.makeChains(4)
        }

        func serve(_ input: inout FuzzInput) throws {
            for _ in 0..<stepLimit where !input.isEmpty {
                switch Step.allCases[Int(input.next(UInt8.self)) % Step.allCases.count] {
                case .pop:
                    guard let chain = free.last, try queue.pop(into: chain) else { continue }
                    free.removeLast()
                    popped.insert(chain, at: Int(input.next(UInt8.self)) % (popped.count + 1))
                case .push:
                    guard let chain = popped.popLast() else { continue }
                    queue.push(chain, written: UInt32(chain.writable.byteCount & 0xffff))
                    free.append(chain)
                case .notify: queue.notify()
                case .arm: _ = queue.armDoorbell()
                case .suppress: queue.suppressDoorbell()
                case .write:
                    let address = UInt64(input.next(UInt16.self))
                    let bytes = input.take(Int(input.next(UInt8.self)))
                    _ = memory.copyIn(bytes, at: GuestAddress(address))
                case .descriptor: writeDescriptor(&input)
                case .move: try move()
                }
            }
        }

        /// One whose buffer lies in the room.
        private func writeDescriptor(_ input: inout FuzzInput) {
            let slot = UInt64(input.next(UInt8.self)) % UInt64(layout.size)
            var bytes = ByteBuilder()
            bytes.append(room + 16 * UInt64(input.next(UInt8.self)))
            bytes.append(input.next(UInt32.self))
            bytes.append(input.next(UInt16.self))
            bytes.append(input.next(UInt16.self))
            _ = memory.copyIn(bytes.bytes, at: GuestAddress(UInt64(descriptors) + 16 * slot))
        }

        /// Another life of the queue, from where it is now.
        private func move() throws {
            guard popped.isEmpty else { return }
            queue = try VirtQueue(
                layout, memory: memory, features: features, interrupt: FakeQueue.Interrupt(),
                doorbell: doorbell, from: queue.position)
        }
    }
}
