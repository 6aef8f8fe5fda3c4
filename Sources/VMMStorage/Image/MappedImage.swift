import VMMHost

/// An image that can say of each byte where it lies, and give it room: reading, writing, zeroing
/// and discarding follow from that, here, once for all such formats.
package protocol MappedImage: DiskImage {
    /// How the bytes from `offset` on are kept, at least one and at most `limit`; never `.unknown`.
    /// Both lie inside the image.
    func locate(at offset: UInt64, limit: UInt64) throws(ImageError) -> ExtentMap.Extent
    /// Makes the byte at `offset` one that `locate` calls writable data; what lies around it reads
    /// as before.
    func makeRoom(at offset: UInt64) throws(ImageError)
    /// Of what is not writable, a discard passes over so much at a time, in bytes: an image that
    /// knows larger units than one run of `locate` saves itself the look at each run.
    var discardUnit: UInt64 { get }
}

extension MappedImage {
    package func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(ImageError) {
        try requireInside(offset, UInt64(bytes.count))
        var done = 0
        while done < bytes.count {
            let extent = try locate(at: offset + UInt64(done), limit: UInt64(bytes.count - done))
            var piece = bytes._mutatingExtracting(done..<done + Int(extent.count))
            if case .data(let file, let start, _) = extent.place {
                do throws(HostError) {
                    try files[file].readPadded(into: &piece, at: start)
                } catch {
                    throw .host(error)
                }
            } else {
                piece.update(repeating: 0)
            }
            done += Int(extent.count)
        }
    }

    package func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(ImageError) {
        try requireInside(offset, UInt64(bytes.count))
        try requireWritable()
        var done = 0
        while done < bytes.count {
            let room = try room(at: offset + UInt64(done), limit: UInt64(bytes.count - done))
            let piece = bytes.extracting(done..<done + Int(room.count))
            try hosted { () throws(HostError) in try room.file.write(piece, at: room.start) }
            done += Int(room.count)
        }
    }

    package func writeZeros(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(ImageError) {
        try requireInside(offset, count)
        try requireWritable()
        var done: UInt64 = 0
        while done < count {
            let extent = try locate(at: offset + done, limit: count - done)
            if extent.place == .zeros {
                done += extent.count
                continue
            }
            let room = try room(at: offset + done, limit: extent.count)
            try hosted { () throws(HostError) in
                try room.file.writeZeros(at: room.start, count: room.count, mayUnmap: mayUnmap)
            }
            done += room.count
        }
    }

    /// Gives back what the file system can take back; blocks keep their place in the file.
    package func discard(at offset: UInt64, count: UInt64) throws(ImageError) {
        try requireInside(offset, count)
        try requireWritable()
        var done: UInt64 = 0
        while done < count {
            let extent = try locate(at: offset + done, limit: count - done)
            if case .data(let file, let start, true) = extent.place {
                try hosted { () throws(HostError) in
                    try files[file].discard(at: start, count: extent.count)
                }
                done += extent.count
            } else {
                let rest = discardUnit - (offset + done) % discardUnit
                done += max(extent.count, rest)
            }
        }
    }

    package func allocation(at offset: UInt64) throws(ImageError) -> ImageAllocation {
        try requireInside(offset, 1)
        var result = try stretch(at: offset)
        for _ in 0..<stretchLimit where offset + result.count < byteCount {
            let next = try stretch(at: offset + result.count)
            guard next.kind == result.kind else { break }
            result = ImageAllocation(result.kind, count: result.count + next.count)
        }
        return result
    }

    package var discardUnit: UInt64 { 1 }

    func requireWritable() throws(ImageError) {
        guard !isReadOnly else { throw .invalid("is open for reading only") }
    }

    /// Writable data from `offset` on, made if there is none yet.
    private func room(
        at offset: UInt64, limit: UInt64
    ) throws(ImageError) -> (file: any ImageFile, start: UInt64, count: UInt64) {
        for isMade in [false, true] {
            let extent = try locate(at: offset, limit: limit)
            if case .data(let file, let start, true) = extent.place {
                return (files[file], start, extent.count)
            }
            if !isMade { try makeRoom(at: offset) }
        }
        throw .host(HostError("write", code: HostError.ioCode))
    }

    /// What lies at `offset`, up to the end of its unit or of the file's hole.
    private func stretch(at offset: UInt64) throws(ImageError) -> ImageAllocation {
        let extent = try locate(at: offset, limit: byteCount - offset)
        guard case .data(let file, let start, _) = extent.place else {
            return ImageAllocation(.zeros, count: extent.count)
        }
        let data = try hosted { () throws(HostError) in
            try files[file].allocatedRange(from: start)
        }
        guard let data, data.lowerBound < start + extent.count else {
            return ImageAllocation(.zeros, count: extent.count)
        }
        return data.lowerBound > start
            ? ImageAllocation(.zeros, count: data.lowerBound - start)
            : ImageAllocation(.data, count: min(data.upperBound - start, extent.count))
    }
}

/// Units that one answer of `allocation` joins at most: a bound on its time, not on the format.
private let stretchLimit = 4096
