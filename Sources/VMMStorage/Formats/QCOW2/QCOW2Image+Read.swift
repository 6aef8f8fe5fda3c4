import VMMHost

/// Reading, and telling the extent map what was learned on the way.
extension QCOW2Image {
    package func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(ImageError) {
        try requireInside(offset, UInt64(bytes.count))
        try fetch(into: &bytes, at: offset)
    }

    /// As `read`, up to the end of the disk's last cluster.
    func fetch(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(ImageError) {
        var done = 0
        while done < bytes.count {
            let position = offset + UInt64(done)
            let run = try run(at: position, limit: UInt64(bytes.count - done))
            var part = bytes._mutatingExtracting(done..<done + Int(run.count))
            try fetch(run, into: &part, at: position)
            learn(position, run)
            done += Int(run.count)
        }
    }

    private func fetch(
        _ run: Run, into bytes: inout MutableSpan<UInt8>, at offset: UInt64
    ) throws(ImageError) {
        switch run.mapping {
        case .data:
            do throws(HostError) {
                try file.readPadded(into: &bytes, at: run.host)
            } catch {
                throw .host(error)
            }
        case .zeros: bytes.update(repeating: 0)
        case .unallocated: try fetchBacking(into: &bytes, at: offset)
        case .compressed(let host, let count):
            let cluster = try unpack(host, count)
            let inside = Int(offset % geometry.clusterSize)
            for index in 0..<bytes.count { bytes[index] = cluster[inside + index] }
        }
    }

    private func fetchBacking(
        into bytes: inout MutableSpan<UInt8>, at offset: UInt64
    ) throws(ImageError) {
        let reach = backing.map { offset < $0.byteCount ? $0.byteCount - offset : 0 } ?? 0
        let count = Int(min(UInt64(bytes.count), reach))
        if count > 0 {
            var part = bytes._mutatingExtracting(0..<count)
            try backing?.read(into: &part, at: offset)
        }
        var rest = bytes._mutatingExtracting(count...)
        rest.update(repeating: 0)
    }

    /// The content of a compressed cluster, of which `count` bytes from `host` on hold the packed
    /// form.
    private func unpack(_ host: UInt64, _ count: Int) throws(ImageError) -> [UInt8] {
        if let unpacked, unpacked.host == host { return unpacked.bytes }
        let packed = try hosted { () throws(HostError) in
            var bytes = [UInt8](repeating: 0, count: count)
            var span = bytes.mutableSpan
            let found = try file.read(into: &span, at: host)
            return bytes[..<found]
        }
        var bytes = [UInt8](repeating: 0, count: Int(geometry.clusterSize))
        var span = bytes.mutableSpan
        let produced =
            switch header.compression {
            case .zlib: Inflater.inflateRaw(packed.span, into: &span)
            case .zstd: Inflater.inflateZstandard(packed.span, into: &span)
            }
        guard produced == bytes.count else {
            throw .corrupt("the compressed cluster at \(host) cannot be unpacked")
        }
        unpacked = (host, bytes)
        return bytes
    }

    // MARK: publishing

    /// Publishes what the piece of the table says that maps `offset`, if the map does not know.
    func learn(_ offset: UInt64, _ run: Run) {
        // While the disk grows, its new end is cleared before it belongs to the disk.
        if case .compressed = run.mapping { return }
        if offset >= byteCount { return }
        guard extents.extent(at: offset, limit: 1).place == .unknown,
            place(run.mapping, at: offset / geometry.clusterSize * geometry.clusterSize) != .unknown
        else { return }
        let coverage = UInt64(geometry.pieceSize / 8) * geometry.clusterSize
        let start = offset / coverage * coverage
        publish(start..<min(start + coverage, byteCount.roundedUp(to: geometry.clusterSize)))
    }

    /// Publishes what the tables say of whole clusters.
    func publish(_ range: Range<UInt64>) {
        let clusterSize = geometry.clusterSize
        var start = range.lowerBound
        var pending: ExtentMap.Place?
        let end = min(range.upperBound, byteCount.roundedUp(to: clusterSize))
        guard start < end else { return }
        for offset in stride(from: start, to: end, by: Int(clusterSize)) {
            // What is broken stays unknown: the request that asks for it gets to hear of it.
            let place = (try? mapping(at: offset)).map { self.place($0, at: offset) } ?? .unknown
            if let pending, place == Self.advanced(pending, by: offset - start) { continue }
            if let pending { extents.publish(pending, at: start, count: offset - start) }
            pending = place
            start = offset
        }
        if let pending { extents.publish(pending, at: start, count: end - start) }
    }

    private static func advanced(_ place: ExtentMap.Place, by count: UInt64) -> ExtentMap.Place {
        guard case .data(let file, let offset, let isWritable) = place else { return place }
        return .data(file: file, offset: offset + count, isWritable: isWritable)
    }

    /// Where an engine finds the cluster of the guest at `offset`.
    private func place(_ mapping: QCOW2Mapping, at offset: UInt64) -> ExtentMap.Place {
        switch mapping {
        case .zeros: return .zeros
        case .compressed: return .unknown
        case .data(let host, let isCopied):
            let isWritable = !isReadOnly && isOwn(host, isCopied)
            return .data(file: 0, offset: host, isWritable: isWritable)
        case .unallocated:
            guard let backing, offset < backing.byteCount else { return .zeros }
            let count = min(geometry.clusterSize, byteCount - offset)
            guard count <= backing.byteCount - offset else { return .unknown }
            let extent = backing.extents.extent(at: offset, limit: count)
            guard extent.count == count else { return .unknown }
            switch extent.place {
            case .unknown: return .unknown
            case .zeros: return .zeros
            case .data(let file, let start, _):
                // Backing files follow the image's own; an entry of the map has room for so many.
                guard file + 1 < ExtentMap.fileLimit, start % 512 == 0 else { return .unknown }
                return .data(file: file + 1, offset: start, isWritable: false)
            }
        }
    }

    package func allocation(at offset: UInt64) throws(ImageError) -> ImageAllocation {
        try requireInside(offset, 1)
        let run = try run(at: offset, limit: byteCount - offset)
        switch run.mapping {
        case .data, .compressed: return ImageAllocation(.data, count: run.count)
        case .zeros: return ImageAllocation(.zeros, count: run.count)
        case .unallocated:
            guard let backing, offset < backing.byteCount else {
                return ImageAllocation(.zeros, count: run.count)
            }
            let below = try backing.allocation(at: offset)
            let count = min(run.count, below.count)
            switch below.kind {
            case .zeros: return ImageAllocation(.zeros, count: count)
            case .data: return ImageAllocation(.backing(depth: 1), count: count)
            case .backing(let depth):
                return ImageAllocation(.backing(depth: depth + 1), count: count)
            }
        }
    }
}
