import Foundation
import VMMBase
import VMMHost
import VMMStorage
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

/// A block device on an image of its own, with a driver.
final class BlockFixture {
    static let sectorCount: UInt64 = 64

    /// Feature bits of the specification (VirtIO 1.3, 5.2.3).
    enum Bit {
        static let flush: UInt64 = 1 << 9
        static let writebackSwitch: UInt64 = 1 << 11
    }

    let directory: TemporaryDirectory
    let path: String
    let disk: Disk
    let device: VirtIOBlock
    let driver: FakeDriver
    var queue: FakeQueue { driver.queues[0] }

    /// An image of 64 sectors, each filled with its number; `tail` bytes more make no sector. By
    /// `faults` and a seed its requests go wrong.
    init(
        engine: DiskEngineKind? = nil, isReadOnly: Bool = false,
        features: UInt64 = Feature.ring, tail: Int = 0, queueSize: UInt16 = 128,
        serial: String? = "serial", faults: (rules: [FaultRule], seed: UInt64)? = nil,
        change: (inout DiskOptions) -> Void = { _ in }
    ) throws {
        directory = try TemporaryDirectory()
        path = directory.file("disk")
        let sectors = (0..<UInt8(Self.sectorCount)).flatMap { Array(repeating: $0, count: 512) }
        try Data(sectors + Array(repeating: 0xee, count: tail)).write(to: URL(filePath: path))
        var options = DiskOptions()
        options.engine = engine
        options.image.format = .raw
        options.image.isReadOnly = isReadOnly
        change(&options)
        if let faults {
            let file = FaultyFile(
                try HostFile(path: path, isReadOnly: isReadOnly), rules: [], seed: faults.seed)
            disk = try Disk(ImageOpener.open(file, options.image), options)
            file.rules = faults.rules
        } else {
            disk = try Disk(path: path, options)
        }
        device = VirtIOBlock(
            id: "_disk0", disk: disk, queueSizes: [queueSize], serial: serial,
            clock: SystemClock())
        driver = try FakeDriver(device, features: features)
    }

    var image: [UInt8] {
        get throws { Array(try Data(contentsOf: URL(filePath: path))) }
    }

    func truncateImage(to count: UInt64) throws {
        let handle = try FileHandle(forWritingTo: URL(filePath: path))
        try handle.truncate(atOffset: count)
        try handle.close()
    }

    func header(_ type: UInt32, sector: UInt64 = 0) -> [UInt8] {
        var bytes = ByteBuilder()
        bytes.append(type)
        bytes.append(UInt32(0))
        bytes.append(sector)
        return bytes.bytes
    }

    /// Discard and write-zeros: sector, count and flags.
    func segment(_ sector: UInt64, _ count: UInt32, flags: UInt32 = 0) -> [UInt8] {
        var bytes = ByteBuilder()
        bytes.append(sector)
        bytes.append(count)
        bytes.append(flags)
        return bytes.bytes
    }

    /// A status byte that no device writes, so that a missing answer shows.
    func statusByte() -> FakeQueue.Buffer {
        driver.buffer(1, isWritable: true, bytes: [0xaa])
    }

    /// Rings and waits until `count` requests came back, ten seconds for each event at most.
    func complete(_ count: Int = 1) throws -> [FakeQueue.Completion] {
        try driver.ring(0)
        var done = queue.takeUsed()
        while done.count < count {
            guard waitForAnswer() else { break }
            try driver.settle()
            done += queue.takeUsed()
        }
        return done
    }

    private func waitForAnswer() -> Bool {
        for _ in 0..<10_000 {
            for source in device.wakeSources where source.isReady(.readable) { return true }
            usleep(1000)
        }
        return false
    }

    /// One request of these parts; its status and how many bytes the device says it wrote.
    func perform(
        _ header: [UInt8], _ data: [FakeQueue.Buffer] = []
    ) throws -> (status: UInt8?, written: UInt32?) {
        let status = statusByte()
        queue.recycle()
        queue.add([driver.readable(header)] + data + [status])
        let written = try complete().first?.written
        return (driver.contents(status).first, written)
    }
}
