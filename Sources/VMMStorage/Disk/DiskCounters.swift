import Synchronization

/// What a disk has done since its start.
package struct DiskStatistics: Equatable, Sendable {
    package var readOperations: UInt64 = 0
    package var readBytes: UInt64 = 0
    package var writeOperations: UInt64 = 0
    package var writeBytes: UInt64 = 0
    /// Of reads and of writes, in microseconds; the least is `.max` while there was none.
    package var readLatency = Latency()
    package var writeLatency = Latency()

    package struct Latency: Equatable, Sendable {
        package var least: UInt64 = .max
        package var most: UInt64 = 0
        package var sum: UInt64 = 0
    }

    package static func + (one: DiskStatistics, other: DiskStatistics) -> DiskStatistics {
        var result = one
        result.readOperations &+= other.readOperations
        result.readBytes &+= other.readBytes
        result.writeOperations &+= other.writeOperations
        result.writeBytes &+= other.writeBytes
        result.readLatency = one.readLatency.joined(other.readLatency)
        result.writeLatency = one.writeLatency.joined(other.writeLatency)
        return result
    }
}

extension DiskStatistics.Latency {
    func joined(_ other: Self) -> Self {
        Self(least: min(least, other.least), most: max(most, other.most), sum: sum &+ other.sum)
    }
}

/// The counters of one queue: written by its thread alone, read by any.
final class DiskCounters: Sendable {
    private struct Direction: ~Copyable, Sendable {
        let operations = Atomic<UInt64>(0)
        let bytes = Atomic<UInt64>(0)
        let least = Atomic<UInt64>(.max)
        let most = Atomic<UInt64>(0)
        let sum = Atomic<UInt64>(0)

        func count(_ byteCount: UInt64, _ microseconds: UInt64) {
            // One writer: no read-modify-write is needed.
            operations.store(operations.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
            bytes.store(bytes.load(ordering: .relaxed) &+ byteCount, ordering: .relaxed)
            sum.store(sum.load(ordering: .relaxed) &+ microseconds, ordering: .relaxed)
            if microseconds < least.load(ordering: .relaxed) {
                least.store(microseconds, ordering: .relaxed)
            }
            if microseconds > most.load(ordering: .relaxed) {
                most.store(microseconds, ordering: .relaxed)
            }
        }

        var latency: DiskStatistics.Latency {
            .init(
                least: least.load(ordering: .relaxed), most: most.load(ordering: .relaxed),
                sum: sum.load(ordering: .relaxed))
        }
    }

    private let reads = Direction()
    private let writes = Direction()

    func countRead(byteCount: UInt64, microseconds: UInt64) { reads.count(byteCount, microseconds) }
    func countWrite(byteCount: UInt64, microseconds: UInt64) {
        writes.count(byteCount, microseconds)
    }

    var statistics: DiskStatistics {
        DiskStatistics(
            readOperations: reads.operations.load(ordering: .relaxed),
            readBytes: reads.bytes.load(ordering: .relaxed),
            writeOperations: writes.operations.load(ordering: .relaxed),
            writeBytes: writes.bytes.load(ordering: .relaxed),
            readLatency: reads.latency, writeLatency: writes.latency)
    }
}
