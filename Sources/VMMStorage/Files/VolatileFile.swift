import VMMBase
import VMMHost

/// A disk with a cache that a power cut empties: what was not synchronized may be lost, each sector
/// by itself and in any order. Below it `file` has what is on stable storage.
package final class VolatileFile: ImageFile {
    package var path: String { file.path }
    package let isReadOnly = false
    package var descriptor: FileDescriptor? { nil }
    package let alignment = 1

    private let file: any ImageFile
    /// What each sector held since the last synchronisation, the newest last.
    private var versions: [UInt64: [[UInt8]]] = [:]
    private var size: UInt64

    /// What a disk writes whole or not at all.
    private static let sectorSize: UInt64 = 512

    package init(_ file: any ImageFile) throws(HostError) {
        self.file = file
        size = try file.byteCount()
    }

    /// The power fails: of each sector any version may be there that it had since the last
    /// synchronisation, or the one before. `keepsAll`: the newest of all, as a killed process
    /// leaves it.
    package func cut(seed: UInt64, keepsAll: Bool = false) throws(HostError) {
        var random = SeededGenerator(seed: seed)
        // Half of the cuts lose much, the others little.
        let loss = Int.random(in: 0...4, using: &random)
        for sector in versions.keys.sorted() {
            guard let contents = versions[sector] else { continue }
            let kept =
                keepsAll || Int.random(in: 0...4, using: &random) >= loss
                ? contents.count - 1
                : Int.random(in: -1..<contents.count, using: &random)
            if kept >= 0 { try file.write(contents[kept], at: sector * Self.sectorSize) }
        }
        if keepsAll || Bool.random(using: &random), try file.byteCount() < size {
            try file.resize(to: size)
        }
        versions = [:]
        size = try file.byteCount()
    }

    private func content(_ sector: UInt64) throws(HostError) -> [UInt8] {
        if let newest = versions[sector]?.last { return newest }
        var bytes = [UInt8](repeating: 0, count: Int(Self.sectorSize))
        var span = bytes.mutableSpan
        try file.readPadded(into: &span, at: sector * Self.sectorSize)
        return bytes
    }

    // MARK: ImageFile

    package func byteCount() throws(HostError) -> UInt64 { size }

    package func read(
        into bytes: inout MutableSpan<UInt8>, at offset: UInt64
    ) throws(HostError) -> Int {
        let count = offset < size ? Int(min(UInt64(bytes.count), size - offset)) : 0
        var part = bytes._mutatingExtracting(0..<count)
        try file.readPadded(into: &part, at: offset)
        guard !versions.isEmpty, count > 0 else { return count }
        let end = offset + UInt64(count)
        for sector in offset / Self.sectorSize...(end - 1) / Self.sectorSize {
            guard let newest = versions[sector]?.last else { continue }
            let start = sector * Self.sectorSize
            for position in max(start, offset)..<min(start + Self.sectorSize, end) {
                bytes[Int(position - offset)] = newest[Int(position - start)]
            }
        }
        return count
    }

    package func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(HostError) {
        guard bytes.count > 0 else { return }
        let end = offset + UInt64(bytes.count)
        for sector in offset / Self.sectorSize...(end - 1) / Self.sectorSize {
            let start = sector * Self.sectorSize
            let isWhole = start >= offset && start + Self.sectorSize <= end
            var content =
                isWhole
                ? [UInt8](repeating: 0, count: Int(Self.sectorSize)) : try content(sector)
            for position in max(start, offset)..<min(start + Self.sectorSize, end) {
                content[Int(position - start)] = bytes[Int(position - offset)]
            }
            versions[sector, default: []].append(content)
        }
        size = max(size, end)
    }

    package func writeZeros(
        at offset: UInt64, count: UInt64, mayUnmap: Bool
    ) throws(HostError) {
        // As a host file does: a hole does not make it longer.
        guard offset < size else { return }
        let zeros = [UInt8](repeating: 0, count: Int(min(count, size - offset)))
        try write(zeros.span, at: offset)
    }

    package func discard(at offset: UInt64, count: UInt64) throws(HostError) {
        try writeZeros(at: offset, count: count, mayUnmap: true)
    }

    package func resize(to byteCount: UInt64) throws(HostError) {
        // Growing is all that images do while they are written.
        size = max(size, byteCount)
    }

    package func synchronize() throws(HostError) {
        for (sector, contents) in versions {
            if let newest = contents.last { try file.write(newest, at: sector * Self.sectorSize) }
        }
        if try file.byteCount() < size { try file.resize(to: size) }
        versions = [:]
        try file.synchronize()
    }

    package func allocatedRange(from offset: UInt64) throws(HostError) -> Range<UInt64>? {
        offset < size ? offset..<size : nil
    }
}
