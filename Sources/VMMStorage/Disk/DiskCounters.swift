import VMMBase

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
        let operations = Counter()
        let bytes = Counter()
        let least = Counter(.max)
        let most = Counter()
        let sum = Counter()

        func count(_ byteCount: UInt64, _ microseconds: UInt64) {
            operations.add()
            bytes.add(byteCount)
            sum.add(microseconds)
            if microseconds < least.current { least.set(microseconds) }
            if microseconds > most.current { most.set(microseconds) }
        }

        var latency: DiskStatistics.Latency {
            .init(least: least.current, most: most.current, sum: sum.current)
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
            readOperations: reads.operations.current,
            readBytes: reads.bytes.current,
            writeOperations: writes.operations.current,
            writeBytes: writes.bytes.current,
            readLatency: reads.latency, writeLatency: writes.latency)
    }
}
