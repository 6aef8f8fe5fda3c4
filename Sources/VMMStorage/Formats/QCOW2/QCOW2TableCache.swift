import VMMHost

/// Pieces of tables (L2 tables or refcount blocks), as the file holds them or as they shall be.
/// Bounded: clean pieces give way to others; the image writes dirty ones out in its own order
/// before they fill the room.
final class QCOW2TableCache {
    private struct Piece {
        var offset: UInt64
        var bytes: [UInt8]
        var isDirty = false
        /// Asked for since the clock's hand last passed.
        var isRecent = true
    }

    private let file: any ImageFile
    private let pieceSize: UInt64
    private let limit: Int
    private var pieces: [Piece] = []
    private var slots: [UInt64: Int] = [:]
    private var hand = 0
    private(set) var dirtyCount = 0

    /// 2 MiB of each kind of table: L2 entries for 16 GiB of disk with clusters of 64 KiB.
    private static let byteLimit = 2 << 20

    init(_ file: any ImageFile, pieceSize: Int) {
        self.file = file
        self.pieceSize = UInt64(pieceSize)
        limit = max(64, Self.byteLimit / pieceSize)
    }

    /// Half the room is dirty: time to write out, while there is room for one more operation.
    var isCrowded: Bool { dirtyCount >= limit / 2 }

    func isLoaded(_ offset: UInt64) -> Bool { slots[offset & ~(pieceSize - 1)] != nil }

    /// The number at `offset`, a multiple of 8.
    func load64(at offset: UInt64) throws(HostError) -> UInt64 {
        let slot = try slot(for: offset)
        return pieces[slot].bytes.bigEndian(UInt64.self, at: Int(offset & (pieceSize - 1)))
    }

    func store64(_ value: UInt64, at offset: UInt64) throws(HostError) {
        let slot = try slot(for: offset)
        pieces[slot].bytes.storeBigEndian(value, at: Int(offset & (pieceSize - 1)))
        markDirty(slot)
    }

    /// The number of 8, 16, 32 or 64 bits, or the lowest `width` bits at `shift` of a byte.
    func load(width: Int, index: UInt64, at base: UInt64) throws(HostError) -> UInt64 {
        let bit = index * UInt64(width)
        let slot = try slot(for: base + bit / 8)
        let start = Int((base + bit / 8) & (pieceSize - 1))
        if width < 8 {
            return UInt64(pieces[slot].bytes[start]) >> (bit % 8) & (1 << UInt64(width) - 1)
        }
        var value: UInt64 = 0
        for byte in 0..<width / 8 { value = value << 8 | UInt64(pieces[slot].bytes[start + byte]) }
        return value
    }

    func store(_ value: UInt64, width: Int, index: UInt64, at base: UInt64) throws(HostError) {
        let bit = index * UInt64(width)
        let slot = try slot(for: base + bit / 8)
        let start = Int((base + bit / 8) & (pieceSize - 1))
        if width < 8 {
            let mask = UInt8(1 << width - 1) << UInt8(bit % 8)
            let old = pieces[slot].bytes[start] & ~mask
            pieces[slot].bytes[start] = old | UInt8(truncatingIfNeeded: value) << UInt8(bit % 8)
        } else {
            for byte in 0..<width / 8 {
                pieces[slot].bytes[start + byte] = UInt8(
                    truncatingIfNeeded: value >> UInt64(width - 8 - 8 * byte))
            }
        }
        markDirty(slot)
    }

    /// Writes what is dirty. It stays so until `markClean`: what a failed synchronisation may have
    /// lost is written again.
    func writeDirty() throws(HostError) {
        guard dirtyCount > 0 else { return }
        for piece in pieces where piece.isDirty { try file.write(piece.bytes, at: piece.offset) }
    }

    func markClean() {
        guard dirtyCount > 0 else { return }
        for slot in pieces.indices { pieces[slot].isDirty = false }
        dirtyCount = 0
    }

    /// The range was written past this cache.
    func forget(_ range: Range<UInt64>) {
        for offset in stride(from: range.lowerBound, to: range.upperBound, by: Int(pieceSize)) {
            guard let slot = slots.removeValue(forKey: offset) else { continue }
            if pieces[slot].isDirty { dirtyCount -= 1 }
            pieces[slot].isDirty = false
            pieces[slot].isRecent = false
            // No table lies where the file's header is.
            pieces[slot].offset = 0
        }
    }

    private func markDirty(_ slot: Int) {
        guard !pieces[slot].isDirty else { return }
        pieces[slot].isDirty = true
        dirtyCount += 1
    }

    private func slot(for offset: UInt64) throws(HostError) -> Int {
        let start = offset & ~(pieceSize - 1)
        if let slot = slots[start] {
            pieces[slot].isRecent = true
            return slot
        }
        var bytes = [UInt8](repeating: 0, count: Int(pieceSize))
        var span = bytes.mutableSpan
        try file.readPadded(into: &span, at: start)
        let slot = victim()
        let piece = Piece(offset: start, bytes: bytes)
        if slot == pieces.count {
            pieces.append(piece)
        } else {
            if slots[pieces[slot].offset] == slot { slots[pieces[slot].offset] = nil }
            pieces[slot] = piece
        }
        slots[start] = slot
        return slot
    }

    /// A slot to put a new piece into. Grows past the limit rather than lose a dirty piece.
    private func victim() -> Int {
        guard pieces.count >= limit, dirtyCount < pieces.count else { return pieces.count }
        while true {
            hand = (hand + 1) % pieces.count
            if pieces[hand].isDirty { continue }
            if !pieces[hand].isRecent { return hand }
            pieces[hand].isRecent = false
        }
    }
}
