import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMStorage

/// Requests of all kinds through each engine, on an image whose units lie in the file in no order,
/// partly unknown until they are asked for: whatever way a request takes, the bytes are right.
@Suite("DiskQueue")
struct DiskQueueTests {
    private static let engines: [DiskEngineKind] = [.ring, .aio, .synchronous]

    @Test(
        "random requests leave the disk as a plain array would be",
        arguments: engines, [false, true])
    func differential(engine: DiskEngineKind, isDirect: Bool) throws {
        let fixture = try ShuffledDisk(engine, isDirect: isDirect, seed: 1)
        for _ in 0..<600 { try fixture.step() }
        try fixture.compareAll()
        #expect(fixture.disk.statistics.readOperations > 100)
        #expect(fixture.disk.statistics.writeBytes > 100_000)
    }

    @Test("what a limit holds back goes on when its time has come", arguments: engines)
    func throttles(engine: DiskEngineKind) throws {
        let directory = try TemporaryDirectory()
        try Data(count: 65536).write(to: URL(filePath: directory.file("disk")))
        var options = DiskOptions()
        options.engine = engine
        // 20 operations in the bucket, and one more each 5 ms.
        options.limiter = RateLimiter(
            bytes: nil, operations: .init(size: 20, refillMilliseconds: 100), clock: SystemClock())
        let disk = try Disk(path: directory.file("disk"), options)
        let queue = try DiskQueue(disk, depth: 64, clock: SystemClock())

        let start = SystemClock().monotonicNanoseconds()
        for slot in 0..<40 { queue.start(.flush, slot: slot) }
        queue.submit()
        var order: [Int] = []
        while order.count < 40 {
            while let completion = queue.nextCompletion() { order.append(completion.slot) }
            usleep(500)
        }

        let milliseconds = (SystemClock().monotonicNanoseconds() - start) / 1_000_000
        #expect(milliseconds >= 99, "20 operations beyond the bucket, 5 ms each")
        #expect(Set(order) == Set(0..<40))
        #expect(disk.close() == nil)
    }

    @Test("what is held back takes the room of the queue, however much goes through")
    func heldRequests() throws {
        let clock = ManualClock()
        let limiter = RateLimiter(
            bytes: nil, operations: .init(size: 1, refillMilliseconds: 1), clock: clock)
        let throttle = try Throttle(limiter, depth: 4)
        #expect(throttle.admits(0, slot: 0))
        for slot in 0..<3 { #expect(!throttle.admits(0, slot: slot)) }
        for round in 0..<10_000 {
            clock.advance(nanoseconds: 1_000_000)
            #expect(throttle.nextAdmitted() == round % 4)
            #expect(!throttle.admits(0, slot: (round + 3) % 4))
        }
    }

    @Test("what goes ahead of its time is paid for later")
    func charged() throws {
        let clock = ManualClock()
        let limiter = RateLimiter(
            bytes: nil, operations: .init(size: 1, refillMilliseconds: 1000), clock: clock)
        let throttle = try Throttle(limiter, depth: 8)
        for slot in 0..<9 { _ = throttle.admits(0, slot: slot) }
        while throttle.next() != nil {}
        #expect(limiter.admit(byteCount: 0) == 9_000_000_000)
    }

    @Test("who waits for the queue does not wait for a terabyte's discard")
    func drainsDiscard() throws {
        let directory = try TemporaryDirectory()
        let file = try FileDescriptor.open(directory.file("disk"), [.readWrite, .create])
        try file.resize(to: 1 << 40)
        var options = DiskOptions()
        options.engine = .synchronous
        let disk = try Disk(path: directory.file("disk"), options)
        let queue = try DiskQueue(disk, depth: 1, clock: SystemClock())
        queue.start(.discard(offset: 0, count: 1 << 40), slot: 0)
        queue.submit()
        var looks = 0
        var answers = 0
        queue.settle {
            looks += 1
            while queue.nextCompletion() != nil { answers += 1 }
        }
        // 16384 pieces of 64 MiB.
        #expect(looks < 100)
        #expect(answers == 1)
        #expect(disk.close() == nil)
    }

    @Test("a failed synchronization in the midst of a write fails every later flush")
    func lostMetadata() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("disk.vhd")
        try Data().write(to: URL(filePath: path))
        let host = try HostFile(path: path, isReadOnly: false, lock: .none)
        try VHDImage.createDynamic(on: host, byteCount: 8 << 20, blockByteCount: 1 << 16)
        let file = FaultyFile(host, rules: [], seed: 1)
        let disk = try Disk(VHDImage.open(file), DiskOptions())
        let queue = try DiskQueue(disk, depth: 1, clock: SystemClock())
        func code(_ request: DiskRequest) -> Int32 { perform(request, on: queue) }
        let zeros = DiskRequest.writeZeros(offset: 0, count: 512, mayUnmap: false)
        // Makes a block that is not full when it is opened by another hand.
        #expect(code(zeros) == 0 && code(.flush) == 0)
        file.rules = [FaultRule([.synchronize], .fail(code: EIO))]
        #expect(code(.flush) != 0)
        file.rules = []
        #expect(code(.flush) == EIO)
        #expect(disk.close() == nil)
    }

    @Test("a flush that found no room is repeated, by the next one or by the end", arguments: 0...1)
    func fullHost(flushes: Int) throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("disk.qcow2")
        try Data().write(to: URL(filePath: path))
        let host = try HostFile(path: path, isReadOnly: false, lock: .none)
        try QCOW2Image.create(on: host, QCOW2CreateOptions(byteCount: 8 << 20))
        let file = FaultyFile(host, rules: [], seed: 1)
        let image = try QCOW2Image(file, ImageOptions())
        let text = [UInt8](repeating: 0x61, count: 512)
        try image.write(text.span, at: 4096)
        let disk = try Disk(image, DiskOptions())
        let queue = try DiskQueue(disk, depth: 1, clock: SystemClock())
        file.rules = [FaultRule([.write], .fail(code: ENOSPC))]
        #expect(perform(.flush, on: queue) == ENOSPC)
        file.rules = []
        for _ in 0..<flushes { #expect(perform(.flush, on: queue) == 0) }
        #expect(disk.close() == nil)

        let again = try QCOW2Image(
            MemoryFile(Array(Data(contentsOf: URL(filePath: path)))), .init())
        var read = [UInt8](repeating: 0, count: 512)
        var span = read.mutableSpan
        try again.read(into: &span, at: 4096)
        #expect(read == text)
    }

    private func perform(_ request: DiskRequest, on queue: DiskQueue) -> Int32 {
        queue.start(request, slot: 0)
        queue.submit()
        while true {
            if let completion = queue.nextCompletion() { return completion.code }
            queue.wait()
        }
    }

    @Test("what an engine could not make stable is not what an image closes as stable")
    func lostWrites() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("disk.vhd")
        try Data().write(to: URL(filePath: path))
        let host = try HostFile(path: path, isReadOnly: false, lock: .none)
        try VHDImage.createDynamic(on: host, byteCount: 8 << 20, blockByteCount: 1 << 16)
        let disk = try Disk(VHDImage.open(host), DiskOptions())
        disk.setLostWrites()
        #expect(disk.hasLostWrites)
        #expect(disk.close() != nil)
    }

    @Test("a queue comes to rest without what the limit holds, which goes when it is released")
    func settles() throws {
        let directory = try TemporaryDirectory()
        try Data(count: 65536).write(to: URL(filePath: directory.file("disk")))
        var options = DiskOptions()
        options.limiter = RateLimiter(
            bytes: nil, operations: .init(size: 1, refillMilliseconds: 3_600_000),
            clock: SystemClock())
        let queue = try DiskQueue(
            Disk(path: directory.file("disk"), options), depth: 8, clock: SystemClock())
        for slot in 0..<8 { queue.start(.flush, slot: slot) }
        var slots: [Int] = []
        func takeAnswers() {
            while let completion = queue.nextCompletion() { slots.append(completion.slot) }
        }
        queue.settle(takeAnswers)
        #expect(slots == [0])
        queue.release()
        queue.settle(takeAnswers)
        #expect(Set(slots) == Set(0..<8))
    }
}

/// A disk on a qcow2-like image of our own, a model of its content, and a queue.
private final class ShuffledDisk {
    static let unit = 4096
    static let units = 64
    private static let byteCount = unit * units

    let disk: Disk
    private let queue: DiskQueue
    private let memory: GuestMemory
    private let arena: GuestVectorArena
    private let vector: GuestVector
    private let directory: TemporaryDirectory
    private var model = [UInt8](repeating: 0, count: byteCount)
    private var random: SeededGenerator

    init(_ engine: DiskEngineKind, isDirect: Bool, seed: UInt64) throws {
        directory = try TemporaryDirectory()
        let path = directory.file("image")
        try Data(count: Self.byteCount).write(to: URL(filePath: path))
        random = SeededGenerator(seed: seed)
        var order = Array(0..<Self.units)
        for index in order.indices.reversed() {
            order.swapAt(index, Int(random.next() % UInt64(index + 1)))
        }
        let file = try HostFile(path: path, isReadOnly: false, isDirect: isDirect)
        var options = DiskOptions()
        options.engine = engine
        disk = try Disk(ShuffledImage(file, order), options)
        queue = try DiskQueue(disk, depth: 4, clock: SystemClock())
        memory = try GuestMemory(
            ranges: [GuestRange(start: GuestAddress(0), count: 4 << 20)].compactMap { $0 },
            usesHugePages: false)
        arena = try GuestVectorArena(vectors: 1, capacity: 32)
        vector = arena.makeVector()
    }

    deinit { _ = disk.close() }

    private func below(_ bound: Int) -> Int { Int(random.next() % UInt64(bound)) }

    /// One request of a random kind and place, compared with the model.
    func step() throws {
        let offset = 512 * below(Self.byteCount / 512)
        let count = 512 * (1 + below(min(48, (Self.byteCount - offset) / 512)))
        switch below(8) {
        case 0...2:
            let pieces = fill(count)
            try perform(.read(vector, offset: UInt64(offset)))
            // Not inside the macro, which would describe thousands of bytes.
            let isRight = gather(pieces) == Array(model[offset..<offset + count])
            #expect(isRight)
        case 3...5:
            let pieces = fill(count)
            let value = UInt8(1 + below(255))
            for (address, length) in pieces {
                _ = memory.copyIn(
                    Array(repeating: value, count: length), at: GuestAddress(UInt64(address)))
            }
            try perform(.write(vector, offset: UInt64(offset)))
            model.replaceSubrange(
                offset..<offset + count, with: repeatElement(value, count: count))
        case 6:
            try perform(
                .writeZeros(
                    offset: UInt64(offset), count: UInt64(count), mayUnmap: below(2) == 0))
            model.replaceSubrange(offset..<offset + count, with: repeatElement(0, count: count))
        default:
            try perform(.flush)
        }
    }

    func compareAll() throws {
        for offset in stride(from: 0, to: Self.byteCount, by: 65536) {
            let pieces = fill(65536)
            try perform(.read(vector, offset: UInt64(offset)))
            let isRight = gather(pieces) == Array(model[offset..<offset + 65536])
            #expect(isRight)
        }
    }

    /// The vector, newly cut into pieces of memory, aligned and not.
    private func fill(_ count: Int) -> [(address: Int, length: Int)] {
        vector.removeAll()
        var pieces: [(Int, Int)] = []
        var rest = count
        let isAligned = below(2) == 0
        while rest > 0 {
            let most = pieces.count == 31 ? rest : min(rest, isAligned ? 8192 : 5000)
            let length =
                isAligned ? min(rest, 512 * (1 + below(max(1, most / 512)))) : 1 + below(most)
            let last = pieces.count == 30 ? rest : length
            let address = 131072 * pieces.count + (isAligned ? 0 : below(700))
            precondition(
                vector.append(GuestAddress(UInt64(address)), count: UInt32(last), in: memory))
            pieces.append((address, last))
            rest -= last
        }
        return pieces
    }

    private func gather(_ pieces: [(address: Int, length: Int)]) -> [UInt8] {
        pieces.flatMap {
            memory.copyOut(GuestAddress(UInt64($0.address)), count: $0.length) ?? []
        }
    }

    private func perform(_ request: DiskRequest) throws {
        queue.start(request, slot: 2)
        queue.submit()
        while true {
            if let completion = queue.nextCompletion() {
                #expect(completion.slot == 2 && completion.code == 0)
                return
            }
            queue.wait()
        }
    }
}

/// An image that keeps its units in a given order and publishes them one by one: a unit is zeros
/// until it is written.
private final class ShuffledImage: DiskImage {
    let format = ImageFormat.qcow2
    let byteCount = UInt64(ShuffledDisk.unit * ShuffledDisk.units)
    let isReadOnly = false
    let files: [any ImageFile]
    let extents = ExtentMap(granule: UInt64(ShuffledDisk.unit))
    private let order: [Int]
    private var isWritten = [Bool](repeating: false, count: ShuffledDisk.units)

    init(_ file: any ImageFile, _ order: [Int]) {
        files = [file]
        self.order = order
    }

    private func publish(_ unit: Int) {
        let unitBytes = UInt64(ShuffledDisk.unit)
        let place: ExtentMap.Place =
            isWritten[unit]
            ? .data(file: 0, offset: UInt64(order[unit]) * unitBytes, isWritable: true) : .zeros
        extents.publish(place, at: UInt64(unit) * unitBytes, count: unitBytes)
    }

    /// Calls `body` with each unit's number, the place in the file and the range of the request.
    private func each(
        _ offset: UInt64, _ count: Int,
        _ body: (Int, UInt64, Range<Int>) throws(HostError) -> Void
    ) throws(ImageError) {
        var done = 0
        while done < count {
            let at = Int(offset) + done
            let unit = at / ShuffledDisk.unit
            let inside = at % ShuffledDisk.unit
            let step = min(count - done, ShuffledDisk.unit - inside)
            do throws(HostError) {
                try body(
                    unit, UInt64(order[unit] * ShuffledDisk.unit + inside), done..<done + step)
            } catch {
                throw .host(error)
            }
            publish(unit)
            done += step
        }
    }

    func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(ImageError) {
        var all = [UInt8](repeating: 0, count: bytes.count)
        try each(offset, all.count) { unit, place, range throws(HostError) in
            guard isWritten[unit] else { return }
            let part = try files[0].bytes(at: place, count: range.count) ?? []
            all.replaceSubrange(range, with: part)
        }
        for index in all.indices { bytes[index] = all[index] }
    }

    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(ImageError) {
        let all = (0..<bytes.count).map { bytes[$0] }
        try each(offset, all.count) { unit, place, range throws(HostError) in
            isWritten[unit] = true
            try files[0].write(Array(all[range]), at: place)
        }
        extents.setUnflushedMetadata(true)
    }

    func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(ImageError) {
        let zeros = [UInt8](repeating: 0, count: Int(count))
        try write(zeros.span, at: offset)
    }

    func discard(at offset: UInt64, count: UInt64) throws(ImageError) {}
    func flush() throws(ImageError) { extents.setUnflushedMetadata(false) }
    func resize(to byteCount: UInt64) throws(ImageError) { throw .invalid("no") }
    func allocation(at offset: UInt64) throws(ImageError) -> ImageAllocation {
        ImageAllocation(.data, count: 1)
    }
    func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck { ImageCheck() }
    func close() throws(ImageError) {}
}
