import VMMHost

/// How an image's compressed clusters are packed; the header's number for it.
package enum QCOW2Compression: UInt8, Sendable {
    case zlib, zstd
}

/// What a new qcow2 image shall be like; the defaults are `qemu-img create`'s.
package struct QCOW2CreateOptions: Sendable {
    package enum Preallocation: Sendable { case none, metadata }

    /// The guest's view of the size: a multiple of 512.
    package var byteCount: UInt64
    package var clusterSize: UInt64 = 65536
    package var version: UInt32 = 3
    package var compression = QCOW2Compression.zlib
    package var refcountBits = 16
    package var lazyRefcounts = false
    /// The backing file's name and format, written as they are: opening finds out what they mean.
    package var backing: (name: String, format: String?)?
    package var preallocation = Preallocation.none

    package init(byteCount: UInt64) { self.byteCount = byteCount }
}

extension QCOW2Image {
    /// Writes a new image over whatever `file` holds.
    package static func create(
        on file: any ImageFile, _ options: QCOW2CreateOptions
    ) throws(ImageError) {
        let geometry = try geometry(options)
        let layout = try QCOW2Layout(geometry, byteCount: options.byteCount)
        let head = try head(options, geometry, layout)
        try hosted { () throws(HostError) in
            let byteCount = layout.clusters * geometry.clusterSize
            // A block device stays as long as it is; what lies behind the tables does not matter.
            if (try? file.resize(to: 0)) == nil {
                try file.writeZeros(at: 0, count: byteCount, mayUnmap: true)
            }
            if try file.byteCount() < byteCount { try file.resize(to: byteCount) }
            try file.write(layout.refcountTable.bigEndianBytes(), at: geometry.clusterSize)
            try file.write(layout.refcounts, at: layout.blocksStart * geometry.clusterSize)
            try file.synchronize()
            try file.write(head, at: 0)
            try file.synchronize()
        }
        if options.preallocation == .metadata { try preallocate(file) }
    }

    private static func geometry(
        _ options: QCOW2CreateOptions
    ) throws(ImageError) -> QCOW2Geometry {
        guard options.byteCount >= 512, options.byteCount % 512 == 0 else {
            throw .invalid("a disk is whole sectors of 512 bytes, at least one")
        }
        let clusterSize = options.clusterSize
        guard clusterSize.nonzeroBitCount == 1, (512...2 << 20).contains(clusterSize) else {
            throw .invalid("a cluster is a power of two between 512 bytes and 2 MiB")
        }
        let bits = options.refcountBits
        guard bits.nonzeroBitCount == 1, (1...64).contains(bits) else {
            throw .invalid("a refcount has 1, 2, 4, 8, 16, 32 or 64 bits")
        }
        guard options.version == 3 || options.version == 2 else {
            throw .invalid("qcow2 has the versions 2 and 3")
        }
        guard options.backing == nil || options.preallocation == .none else {
            throw .invalid("an image with a backing file cannot be preallocated")
        }
        let needsVersion3 = bits != 16 || options.lazyRefcounts || options.compression != .zlib
        guard options.version == 3 || !needsVersion3 else {
            throw .invalid("version 2 has refcounts of 16 bits, kept exact, and zlib")
        }
        return QCOW2Geometry(
            clusterBits: clusterSize.trailingZeroBitCount,
            refcountOrder: bits.trailingZeroBitCount)
    }

    /// The first cluster.
    private static func head(
        _ options: QCOW2CreateOptions, _ geometry: QCOW2Geometry, _ layout: QCOW2Layout
    ) throws(ImageError) -> [UInt8] {
        let headerLength = options.version == 2 ? 72 : 112
        var bytes = [UInt8](repeating: 0, count: headerLength)
        bytes.storeBigEndian(UInt32(0x5146_49fb), at: 0)
        bytes.storeBigEndian(options.version, at: 4)
        bytes.storeBigEndian(UInt32(geometry.clusterBits), at: 20)
        bytes.storeBigEndian(options.byteCount, at: 24)
        bytes.storeBigEndian(UInt32(geometry.l1Entries(options.byteCount)), at: 36)
        bytes.storeBigEndian(layout.l1Start * geometry.clusterSize, at: 40)
        bytes.storeBigEndian(geometry.clusterSize, at: 48)
        bytes.storeBigEndian(UInt32(layout.blocksStart - 1), at: 56)
        if options.version >= 3 {
            if options.compression != .zlib {
                bytes.storeBigEndian(QCOW2Header.compressionType, at: 72)
                bytes[104] = options.compression.rawValue
            }
            bytes.storeBigEndian(options.lazyRefcounts ? QCOW2Header.lazyRefcounts : 0, at: 80)
            bytes.storeBigEndian(UInt32(geometry.refcountOrder), at: 96)
            bytes.storeBigEndian(UInt32(headerLength), at: 100)
        }
        if let format = options.backing?.format {
            bytes.append(extension: 0xe279_2aca, Array(format.utf8))
        }
        bytes.append(extension: 0, [])
        if let name = options.backing?.name {
            guard (1...1023).contains(name.utf8.count) else {
                throw .invalid("the name of a backing file has 1 to 1023 bytes")
            }
            bytes.storeBigEndian(UInt64(bytes.count), at: 8)
            bytes.storeBigEndian(UInt32(name.utf8.count), at: 16)
            bytes += Array(name.utf8)
        }
        guard bytes.count <= geometry.clusterSize else {
            throw .invalid("the name of the backing file is too long for the cluster size")
        }
        bytes += [UInt8](repeating: 0, count: Int(geometry.clusterSize) - bytes.count)
        return bytes
    }

    /// Gives each of the disk's clusters its room, which reads as zeros.
    private static func preallocate(_ file: any ImageFile) throws(ImageError) {
        let image = try QCOW2Image(file, ImageOptions())
        var offset: UInt64 = 0
        while offset < image.byteCount {
            offset = try image.allocateEmpty(at: offset)
        }
        try image.close()
    }
}

extension [UInt8] {
    fileprivate mutating func append(extension type: UInt32, _ data: [UInt8]) {
        let start = count
        self += [UInt8](repeating: 0, count: 8 + (data.count + 7) & ~7)
        storeBigEndian(type, at: start)
        storeBigEndian(UInt32(data.count), at: start + 4)
        replaceSubrange(start + 8..<start + 8 + data.count, with: data)
    }
}

/// Where the tables of a new image lie: header, refcount table, blocks, L1 table.
struct QCOW2Layout {
    let blocksStart: UInt64
    let l1Start: UInt64
    let clusters: UInt64
    let refcountTable: [UInt64]
    let refcounts: [UInt8]

    init(_ geometry: QCOW2Geometry, byteCount: UInt64) throws(ImageError) {
        let l1Bytes = geometry.l1Entries(byteCount).multipliedReportingOverflow(by: 8)
        guard !l1Bytes.overflow, l1Bytes.partialValue <= QCOW2Geometry.l1TableLimit else {
            throw .invalid("the disk is too large for the cluster size")
        }
        let l1Clusters = geometry.clusters(l1Bytes.partialValue)
        var blocks: UInt64 = 1
        var tableClusters: UInt64 = 1
        var total: UInt64
        repeat {
            tableClusters = blocks.dividedUp(by: geometry.tableEntries)
            total = 1 + tableClusters + blocks + l1Clusters
            if total <= blocks * geometry.refcountsPerBlock { break }
            blocks += 1
        } while true
        let start = 1 + tableClusters
        blocksStart = start
        l1Start = start + blocks
        clusters = total
        refcountTable = (0..<blocks).map { (start + $0) * geometry.clusterSize }
        var counts = [UInt8](repeating: 0, count: Int(blocks * geometry.clusterSize))
        for cluster in 0..<total {
            counts.setRefcount(1, order: geometry.refcountOrder, at: cluster)
        }
        refcounts = counts
    }
}
