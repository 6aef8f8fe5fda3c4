/// What only a qcow2 image says of itself.
package struct QCOW2Summary: Sendable {
    package let version: UInt32
    package let compression: QCOW2Compression
    package let refcountBits: Int
    package let hasLazyRefcounts: Bool
    /// Marked as damaged by whoever found it so.
    package let isCorrupt: Bool
    package let snapshotCount: UInt32
    /// Where the backing file lies for whoever stands where the caller does; nil when there is
    /// none, or its name is no path.
    package let backingPath: String?
}

extension QCOW2Image {
    package var summary: ImageSummary {
        var summary = ImageSummary()
        summary.unitByteCount = geometry.clusterSize
        summary.backing = header.backingName.map { ($0, header.backingFormat) }
        summary.isDirty = header.incompatible & QCOW2Header.dirty != 0
        summary.qcow2 = QCOW2Summary(
            version: header.version, compression: header.compression,
            refcountBits: 1 << geometry.refcountOrder,
            hasLazyRefcounts: header.compatible & QCOW2Header.lazyRefcounts != 0,
            isCorrupt: header.incompatible & QCOW2Header.corrupt != 0,
            snapshotCount: header.snapshotCount,
            backingPath: header.backingName.flatMap { try? Self.path($0, beside: file.path) })
        return summary
    }
}
