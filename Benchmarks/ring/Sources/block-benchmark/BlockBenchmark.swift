import CAllocationCount
import Synchronization
import VMMBase
import VMMDevices
import VMMHost
import VMMStorage
import VMMVirtIO

/// What the way of a block request costs on this machine, from the doorbell to the interrupt: a
/// driver on the main thread keeps batches of requests of 4 KiB going, the device serves them on
/// an I/O thread as it does for a guest. `block-benchmark IMAGE [REQUESTS]`; the image is best in
/// the page cache. Prints one line of JSON.
@main
enum BlockBenchmark {
    private static let batch = 32
    private static let queueSize: UInt16 = 256

    /// Wakes the driver, as an irqfd does.
    private final class Bell: QueueInterrupt {
        let event: EventFD

        init() throws { event = try EventFD() }
        func signal() { event.signal() }
        func signal(through sink: any EventSink) { event.signal(through: sink) }
    }

    static func main() throws {
        let words = CommandLine.arguments
        guard words.count > 1 else {
            print("usage: block-benchmark IMAGE [REQUESTS]")
            return
        }
        let requests = words.count > 2 ? Int(words[2]) ?? 100_000 : 100_000
        var results: [String] = []
        for (name, kind) in [("read", BlockDriver.Kind.read), ("write", .write)] {
            results.append(
                "\"\(name)\": " + (try measure(path: words[1], kind, rounds: requests / batch)))
        }
        print("{\(results.joined(separator: ", "))}")
    }

    private static func measure(path: String, _ kind: BlockDriver.Kind, rounds: Int) throws
        -> String
    {
        guard let range = GuestRange(start: GuestAddress(0), count: 4 << 20) else { return "" }
        let memory = try GuestMemory(ranges: [range])
        let clock = SystemClock()
        let disk = try Disk(path: path, DiskOptions())
        let sectors = disk.sectorCount
        let device = VirtIOBlock(
            id: "disk", disk: disk, queueSizes: [queueSize], serial: nil, clock: clock)
        let bell = try Bell()
        let doorbell = try EventFD()
        let thread = try LoopThread(name: "io", role: .tool)
        let driver = BlockDriver(memory, queueSize: queueSize, batch: batch, sectors: sectors, kind)
        let worker = LoopBound(
            adopting: DeviceWorker(
                device, loop: thread.loop, memory: memory, doorbells: [doorbell],
                limiter: LogLimiter(clock: clock)))
        let activation = DeviceWorker.Activation(
            layouts: [driver.layout], interrupts: [bell],
            features: Feature.ring | Feature.version1 | BlockDriver.featureFlush)
        thread.run { worker.withValue { $0.activate(activation) } }
        func go(_ rounds: Int) {
            for _ in 0..<rounds {
                driver.publishBatch()
                doorbell.signal()
                while !driver.isDone {
                    _ = bell.event.descriptor.isReady(.readable, waitingMilliseconds: -1)
                    bell.event.clear()
                    driver.reap()
                }
            }
        }
        go(200)
        let before = usage(thread)
        let start = clock.monotonicNanoseconds()
        go(rounds)
        let elapsed = clock.monotonicNanoseconds() - start
        let after = usage(thread)
        thread.run { worker.withValue { $0.deactivate() } }
        let count = Double(rounds * batch)
        device.finish()
        thread.end()
        return "{\"requests\": \(rounds * batch), \"wall_ns\": \(Double(elapsed) / count), "
            + "\"io_cpu_ns\": \(Double(after.nanoseconds - before.nanoseconds) / count), "
            + "\"allocations\": \(after.allocations - before.allocations), "
            + "\"failed\": \(driver.failed)}"
    }

    private struct Usage {
        var nanoseconds: UInt64 = 0
        var allocations: UInt64 = 0
    }

    /// What the I/O thread has used so far.
    private static func usage(_ thread: LoopThread) -> Usage {
        let usage = Mutex(Usage())
        thread.run {
            usage.withLock {
                $0 = Usage(nanoseconds: thread_cpu_ns(), allocations: allocation_count())
            }
        }
        return usage.withLock { $0 }
    }
}
