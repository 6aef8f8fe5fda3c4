/// How often each cluster of a file is referred to, as counted by a check.
struct QCOW2References {
    /// Counts of 128 clusters in a row, only where a reference falls: a file may be mostly hole.
    private var chunks: [UInt64: [UInt32]] = [:]
    static let chunkLength: UInt64 = 128
    /// 600 MiB: enough for 8 TiB of clusters of 64 KiB.
    static let largestChunkLimit = 1 << 20
    private let chunkLimit: Int
    private(set) var end: UInt64 = 0

    init(chunkLimit: Int) { self.chunkLimit = chunkLimit }

    mutating func add(_ cluster: UInt64, weight: UInt32 = 1) throws(ImageError) {
        let key = cluster / Self.chunkLength
        let index = Int(cluster % Self.chunkLength)
        if chunks[key] == nil {
            guard chunks.count < chunkLimit else {
                throw .unsupported("more clusters than a check has memory for")
            }
            chunks[key] = [UInt32](repeating: 0, count: Int(Self.chunkLength))
        }
        let sum = (chunks[key]?[index] ?? 0).addingReportingOverflow(weight)
        chunks[key]?[index] = sum.overflow ? .max : sum.partialValue
        end = max(end, cluster + 1)
    }

    func count(of cluster: UInt64) -> UInt64 {
        UInt64(chunks[cluster / Self.chunkLength]?[Int(cluster % Self.chunkLength)] ?? 0)
    }

    /// The clusters that are referred to, in no order.
    func forEach(_ body: (_ cluster: UInt64, _ count: UInt64) throws(ImageError) -> Void)
        throws(ImageError)
    {
        for (key, counts) in chunks {
            for (index, count) in counts.enumerated() where count > 0 {
                try body(key * Self.chunkLength + UInt64(index), UInt64(count))
            }
        }
    }
}
