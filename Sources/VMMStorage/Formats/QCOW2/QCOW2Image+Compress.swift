import VMMHost

/// Writing compressed clusters, for `convert`: a guest's writes never come here.
extension QCOW2Image {
    /// Writes one whole cluster of the disk (its last one may be shorter), packed if that makes it
    /// smaller and nothing is there yet; else as `write` does.
    package func writeCompressed(_ bytes: Span<UInt8>, at offset: UInt64) throws(ImageError) {
        try requireInside(offset, UInt64(bytes.count))
        try requireWritable()
        try keepRoom()
        let clusterSize = geometry.clusterSize
        let isWhole =
            offset % clusterSize == 0
            && (UInt64(bytes.count) == clusterSize || offset + UInt64(bytes.count) == byteCount)
        guard isWhole, UInt64(bytes.count) <= clusterSize, try mapping(at: offset) == .unallocated,
            let packed = packed(bytes)
        else { return try store(bytes, at: offset) }
        extents.setUnflushedMetadata(true)
        let table = try ownTable(for: offset)
        let host = try packRoom(UInt64(packed.count))
        try hosted { () throws(HostError) in try file.write(packed, at: host) }
        let sectors = (host + UInt64(packed.count) - 1) / 512 - host / 512
        let width = UInt64(62 - (geometry.clusterBits - 8))
        try setEntry(QCOW2Geometry.compressed | sectors << width | host, in: table, at: offset)
        publish(offset..<offset + clusterSize)
    }

    /// Nil when packing does not make it smaller.
    private func packed(_ bytes: Span<UInt8>) -> [UInt8]? {
        var content = [UInt8](repeating: 0, count: Int(geometry.clusterSize))
        for index in 0..<bytes.count { content[index] = bytes[index] }
        var result = [UInt8](repeating: 0, count: content.count - 1)
        var span = result.mutableSpan
        let count =
            switch header.compression {
            case .zlib: Inflater.deflateRaw(content.span, into: &span)
            case .zstd: Inflater.deflateZstandard(content.span, into: &span)
            }
        return count.map { Array(result[..<$0]) }
    }

    /// Room for packed bytes inside one cluster, which has one more reference for them.
    private func packRoom(_ count: UInt64) throws(ImageError) -> UInt64 {
        let clusterSize = geometry.clusterSize
        if let next = packEnd, next % clusterSize != 0, next % clusterSize + count <= clusterSize {
            let cluster = next / clusterSize
            let references = try refcounts.count(of: cluster)
            if (1..<geometry.refcountLimit).contains(references) {
                try refcounts.set(references + 1, of: cluster)
                packEnd = next + count
                return next
            }
        }
        let host = try allocate(1).lowerBound * clusterSize
        packEnd = host + count
        return host
    }
}
