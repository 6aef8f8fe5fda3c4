import VMMStorage
import VMMVirtIO

/// A disk's counters, and its size.
struct DiskHandle: DeviceHandle {
    let disk: Disk

    var counters: [(name: String, value: UInt64)] {
        let all = disk.statistics
        func mean(_ latency: DiskStatistics.Latency, _ count: UInt64) -> UInt64 {
            count == 0 ? 0 : latency.sum / count
        }
        return [
            ("read_bytes", all.readBytes), ("write_bytes", all.writeBytes),
            ("read_ops", all.readOperations), ("write_ops", all.writeOperations),
            ("read_latency_min", all.readLatency.least), ("read_latency_max", all.readLatency.most),
            ("read_latency_avg", mean(all.readLatency, all.readOperations)),
            ("write_latency_min", all.writeLatency.least),
            ("write_latency_max", all.writeLatency.most),
            ("write_latency_avg", mean(all.writeLatency, all.writeOperations)),
        ]
    }

    var files: [(path: String, isReadOnly: Bool)] { disk.files }

    func resize(to byteCount: UInt64, done: @escaping @Sendable (String?) -> Void) -> Bool {
        guard !disk.isReadOnly else { return false }
        guard byteCount > 0, byteCount % Disk.sectorSize == 0 else {
            done("a disk's size is a multiple of \(Disk.sectorSize) bytes, and not 0")
            return true
        }
        disk.resize(to: byteCount) { done($0?.description) }
        return true
    }
}
