import VMMHost

/// Zeros and discards. A cluster that is this disk's alone is kept, with a hole in the file: what
/// has been published of it stays true, and the file's room is given back all the same.
extension QCOW2Image {
    package func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(ImageError) {
        try requireInside(offset, count)
        try requireWritable()
        try clear(offset, count, mayUnmap: mayUnmap)
    }

    package func discard(at offset: UInt64, count: UInt64) throws(ImageError) {
        try requireInside(offset, count)
        try requireWritable()
        let clusterSize = geometry.clusterSize
        let start = offset.roundedUp(to: clusterSize)
        // The disk's last cluster is whole when nothing of it is left.
        let end =
            offset + count == byteCount ? offset + count : (offset + count) & ~(clusterSize - 1)
        var position = start
        while position < end {
            try keepRoom()
            let run = try run(at: position, limit: end - position)
            switch run.mapping {
            case .data: try clear(position, run.count, mayUnmap: true, isHint: true)
            case .compressed: try clear(position, clusterSize, mayUnmap: true, isHint: true)
            case .unallocated, .zeros: break
            }
            position += max(run.count, 1)
        }
    }

    private var lookAhead: UInt64 { 64 * geometry.clusterSize }

    /// `isHint`: where it would take writing, the bytes may stay.
    func clear(
        _ offset: UInt64, _ count: UInt64, mayUnmap: Bool, isHint: Bool = false
    ) throws(ImageError) {
        let end = offset + count
        var position = offset
        while position < end {
            try keepRoom()
            // No further: where a cluster at a time is all that can be done, what is looked at in
            // vain is not the rest of the disk.
            let run = try run(at: position, limit: min(end - position, lookAhead))
            if case .data(let host, let isCopied) = run.mapping, try requireOwn(host, isCopied) {
                let part = UInt64(try ownCount(run))
                try hosted { () throws(HostError) in
                    try file.writeZeros(at: run.host, count: part, mayUnmap: mayUnmap)
                }
                position += part
                continue
            }
            if try readsAsZeros(position) {
                // A backing file may end inside of an unallocated run, but not begin.
                position += run.count
                continue
            }
            let next = min(end, clusterEnd(position))
            let isWhole =
                position % geometry.clusterSize == 0
                && (next == clusterEnd(position) || next >= byteCount)
            if isWhole, header.version >= 3 {
                try setZeroFlag(position)
            } else if !isHint {
                try storeZeros(position..<next)
            }
            position = next
        }
    }

    private func clusterEnd(_ offset: UInt64) -> UInt64 {
        (offset / geometry.clusterSize + 1) * geometry.clusterSize
    }

    private func setZeroFlag(_ offset: UInt64) throws(ImageError) {
        extents.setUnflushedMetadata(true)
        let table = try ownTable(for: offset)
        let old = try mapping(at: offset)
        try setEntry(QCOW2Geometry.zero, in: table, at: offset)
        release(old)
        publish(offset..<clusterEnd(offset))
    }

    /// Zeros as data, inside one cluster.
    private func storeZeros(_ range: Range<UInt64>) throws(ImageError) {
        let count = range.upperBound - range.lowerBound
        let zeros = [UInt8](repeating: 0, count: Int(min(count, 64 << 10)))
        var done: UInt64 = 0
        while done < count {
            let step = min(count - done, UInt64(zeros.count))
            try store(zeros.span.extracting(0..<Int(step)), at: range.lowerBound + done)
            done += step
        }
    }
}
