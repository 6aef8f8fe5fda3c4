import CVMMLinux
import Glibc
import VMMBase

/// A list of guest memory slices with room fixed at creation: what one request reads or writes.
/// It can be given to I/O calls, and small headers can be copied in and out. One thread at a time.
@safe package final class GuestVector {
    /// Where the slices are: in the small room until they do not fit there.
    private var storage: UnsafeMutablePointer<iovec>
    private let arena: GuestVectorArena
    // A queue has hundreds of vectors: 32 bits are enough for places in a list, and save pages.
    private let index: Int32
    private var shortCapacity: Int32
    private var shortFirst: Int32 = 0
    private var shortEnd: Int32 = 0
    private var capacity: Int { Int(shortCapacity) }
    private var first: Int {
        get { Int(shortFirst) }
        set { shortFirst = Int32(truncatingIfNeeded: newValue) }
    }
    private var end: Int {
        get { Int(shortEnd) }
        set { shortEnd = Int32(truncatingIfNeeded: newValue) }
    }
    /// Private, so that the compiler sees all accesses and checks none at run time (hot path).
    private var total: UInt64 = 0
    /// What `limit` hid: the slices from `end` on, and the last `tail` bytes of slice `cut`.
    private struct Hidden {
        let byteCount: UInt64
        let end: Int32
        let cut: Int32
        let tail: UInt32
    }
    private var hidden: Hidden?

    fileprivate init(_ arena: GuestVectorArena, _ index: Int) {
        self.arena = arena
        self.index = Int32(truncatingIfNeeded: index)
        unsafe storage = arena.small(index)
        shortCapacity = Int32(truncatingIfNeeded: arena.smallCapacity)
    }

    /// The sum of the slices' lengths in bytes.
    package var byteCount: UInt64 { total }
    /// How many slices there are.
    package var count: Int { end - first }
    package var isEmpty: Bool { byteCount == 0 }

    var base: UnsafeMutablePointer<iovec> { unsafe storage + first }

    package func removeAll() {
        unsafe storage = arena.small(Int(index))
        shortCapacity = Int32(truncatingIfNeeded: arena.smallCapacity)
        first = 0
        end = 0
        total = 0
        hidden = nil
    }

    /// Adds a slice. False when it is not RAM of one region or there is no room.
    package func append(_ address: GuestAddress, count: UInt32, in memory: GuestMemory) -> Bool {
        guard hasRoom(for: 1),
            let pointer = unsafe memory.pointer(at: address, count: UInt64(count))
        else { return false }
        if count == 0 { return true }
        // SAFETY: end < capacity, the room that the arena gave this vector.
        unsafe storage[end] = iovec(iov_base: pointer, iov_len: Int(count))
        end += 1
        total += UInt64(count)
        return true
    }

    /// Adds all slices of `other`; false, with nothing added, when there is no room.
    package func append(_ other: GuestVector) -> Bool {
        guard hasRoom(for: other.count) else { return false }
        for index in other.first..<other.end {
            // SAFETY: there is room, and the slices were checked when `other` got them.
            unsafe storage[end] = other.storage[index]
            end += 1
        }
        total += other.byteCount
        return true
    }

    /// Adds the slices of `other` without its first `skipped` bytes; false, with nothing added,
    /// when there is no room.
    package func append(_ other: GuestVector, skipping skipped: UInt64) -> Bool {
        guard hasRoom(for: other.count) else { return false }
        var rest = min(skipped, other.byteCount)
        total += other.byteCount - rest
        for index in other.first..<other.end {
            // SAFETY: there is room, and the slices were checked when `other` got them.
            var slice = unsafe other.storage[index]
            let cut = unsafe min(rest, UInt64(slice.iov_len))
            rest -= cut
            if unsafe cut == UInt64(slice.iov_len) { continue }
            unsafe slice.iov_base += Int(cut)
            unsafe slice.iov_len -= Int(cut)
            unsafe storage[end] = slice
            end += 1
        }
        return true
    }

    /// Makes room for `count` more slices: where slices were dropped before, or in the large room.
    private func hasRoom(for count: Int) -> Bool {
        if count <= capacity - end { return true }
        let kept = self.count
        guard count <= arena.capacity - kept else { return false }
        if count > capacity - kept {
            let large = unsafe arena.large(Int(index))
            // SAFETY: both rooms are this vector's alone, and the large one is the larger.
            unsafe large.update(from: base, count: kept)
            unsafe storage = large
            shortCapacity = Int32(truncatingIfNeeded: arena.capacity)
        } else {
            // SAFETY: the slices lie in the room from `first` on, and move to its start.
            unsafe storage.update(from: base, count: kept)
        }
        first = 0
        end = kept
        return true
    }

    /// Drops the first `count` bytes (at most all).
    package func removeFirst(_ count: Int) {
        var rest = min(UInt64(count), byteCount)
        total -= rest
        while rest > 0 {
            // SAFETY: rest > 0 means that a slice is left, so first < end.
            let length = unsafe UInt64(storage[first].iov_len)
            if length <= rest {
                first += 1
                rest -= length
            } else {
                unsafe storage[first].iov_base += Int(rest)
                unsafe storage[first].iov_len -= Int(rest)
                rest = 0
            }
        }
    }

    /// Hides all but the first `count` bytes until `unlimit`, so that an operation on part of the
    /// vector needs no list of its own. One limit at a time; until its end only `removeFirst`
    /// may change the vector.
    package func limit(to count: UInt64) {
        guard count < total else { return }
        var rest = count
        var cut = first
        // SAFETY: count < total, so the limit falls before or into a slice before `end`.
        while unsafe rest >= UInt64(storage[cut].iov_len) {
            unsafe rest -= UInt64(storage[cut].iov_len)
            cut += 1
        }
        let tail = rest > 0 ? unsafe storage[cut].iov_len - Int(rest) : 0
        hidden = Hidden(
            byteCount: total - count, end: shortEnd, cut: Int32(truncatingIfNeeded: cut),
            tail: UInt32(truncatingIfNeeded: tail))
        if rest > 0 { unsafe storage[cut].iov_len = Int(rest) }
        end = rest > 0 ? cut + 1 : cut
        total = count
    }

    /// Shows again what `limit` hid.
    package func unlimit() {
        guard let hidden else { return }
        self.hidden = nil
        let cut = Int(hidden.cut)
        if hidden.tail > 0, first > cut {
            // SAFETY: the slice was cut in two and its head, as it stands here, was removed: what
            // follows it in memory is its tail.
            unsafe storage[cut].iov_base += storage[cut].iov_len
            unsafe storage[cut].iov_len = Int(hidden.tail)
            first = cut
        } else if hidden.tail > 0 {
            unsafe storage[cut].iov_len += Int(hidden.tail)
        }
        shortEnd = hidden.end
        total += hidden.byteCount
    }

    /// Whether every slice begins and ends at a multiple of `alignment` bytes of host memory.
    package func isAligned(to alignment: Int) -> Bool {
        for index in first..<end {
            // SAFETY: a slice of this vector; only its numbers are looked at.
            let start = unsafe Int(bitPattern: storage[index].iov_base)
            let isAligned = unsafe (start | storage[index].iov_len) % alignment == 0
            if !isAligned { return false }
        }
        return true
    }

    /// Drops all but the first `count` bytes.
    package func truncate(to count: UInt64) {
        while byteCount > count {
            // SAFETY: bytes are left, so end > first.
            let length = unsafe UInt64(storage[end - 1].iov_len)
            let excess = byteCount - count
            if length <= excess {
                end -= 1
                total -= length
            } else {
                unsafe storage[end - 1].iov_len -= Int(excess)
                total -= excess
            }
        }
    }
}

// Bytes.
extension GuestVector {
    /// Copies the vector's first bytes out, at most `limit`, appending them to `bytes`.
    package func copyOut(into bytes: inout [UInt8], limit: Int = .max) {
        var rest = limit
        for index in first..<end where rest > 0 {
            // SAFETY: each slice is RAM kept mapped by the queue that filled the vector.
            let slice = unsafe storage[index]
            let length = unsafe min(slice.iov_len, rest)
            unsafe bytes.append(
                contentsOf: UnsafeRawBufferPointer(start: slice.iov_base, count: length))
            rest -= length
        }
    }

    /// Copies the vector's first bytes over a part of `bytes`, at most all of it; returns how
    /// many.
    package func copyOut(over bytes: inout [UInt8], _ part: Range<Int>) -> Int {
        precondition(part.lowerBound >= 0 && part.upperBound <= bytes.count)
        var done = 0
        for index in first..<end where done < part.count {
            // SAFETY: as above; length is bounded by both sides.
            let slice = unsafe storage[index]
            let length = unsafe min(slice.iov_len, part.count - done)
            let start = part.lowerBound + done
            unsafe bytes.withUnsafeMutableBytes { target in
                unsafe UnsafeMutableRawBufferPointer(rebasing: target[start..<start + length])
                    .copyMemory(
                        from: UnsafeRawBufferPointer(start: slice.iov_base, count: length))
            }
            done += length
        }
        return done
    }

    /// Fills the vector from its start with `bytes`; returns how many fitted.
    @discardableResult
    package func copyIn(_ bytes: [UInt8]) -> Int { copyIn(bytes.span) }

    /// As above.
    @discardableResult
    package func copyIn(_ bytes: Span<UInt8>) -> Int {
        var done = 0
        for index in first..<end where done < bytes.count {
            // SAFETY: as above; length is bounded by both sides.
            let slice = unsafe storage[index]
            let length = unsafe min(slice.iov_len, bytes.count - done)
            unsafe bytes.withUnsafeBytes { source in
                unsafe UnsafeMutableRawBufferPointer(start: slice.iov_base, count: length)
                    .copyMemory(
                        from: UnsafeRawBufferPointer(rebasing: source[done..<done + length]))
            }
            done += length
        }
        return done
    }

    /// Zeroes the first `count` bytes (at most all).
    package func fillZeros(_ count: UInt64) {
        var rest = count
        for index in first..<end where rest > 0 {
            // SAFETY: as above.
            let slice = unsafe storage[index]
            let length = unsafe min(slice.iov_len, Int(clamping: rest))
            unsafe memset(slice.iov_base, 0, length)
            rest -= UInt64(length)
        }
    }

    /// One little-endian integer `offset` bytes into the vector, wherever slices are cut; nil
    /// where the vector is too short. Fetched once.
    @inlinable
    package func load<Value: FixedWidthInteger & UnsignedInteger>(
        _: Value.Type, at offset: Int
    ) -> Value? {
        word(at: offset, count: Value.bitWidth / 8).map(Value.init(truncatingIfNeeded:))
    }

    /// The same of 1, 2, 4 or 8 bytes.
    @usableFromInline
    func word(at offset: Int, count: Int) -> UInt64? {
        if first < end, unsafe storage[first].iov_len >= offset + count {
            // SAFETY: the first slice holds all of it.
            let pointer = unsafe storage[first].iov_base + offset
            switch count {
            case 8: return unsafe vmm_load_64(pointer)
            case 4: return unsafe UInt64(vmm_load_32(pointer))
            default: break
            }
        }
        var value: UInt64 = 0
        for index in 0..<count {
            guard let byte = byte(at: offset + index) else { return nil }
            value |= UInt64(byte) &<< UInt64(8 * index)
        }
        return value
    }

    /// Sets the byte at `offset`; false where the vector is too short.
    @discardableResult
    package func store(_ value: UInt8, at offset: UInt64) -> Bool {
        guard let pointer = unsafe pointer(at: offset) else { return false }
        unsafe vmm_store_8(pointer, value)
        return true
    }

    /// Takes the last byte off the vector, to be stored later: a request's status.
    package func removeLastByte() -> GuestByte? {
        guard byteCount > 0, let pointer = unsafe pointer(at: byteCount - 1) else { return nil }
        truncate(to: byteCount - 1)
        return unsafe GuestByte(pointer)
    }

    private func byte(at offset: Int) -> UInt8? {
        guard let pointer = unsafe pointer(at: UInt64(offset)) else { return nil }
        return unsafe vmm_load_8(pointer)
    }

    private func pointer(at offset: UInt64) -> UnsafeMutableRawPointer? {
        var rest = offset
        for index in first..<end {
            let slice = unsafe storage[index]
            let length = unsafe UInt64(slice.iov_len)
            // SAFETY: rest is inside this slice.
            if rest < length { return unsafe slice.iov_base + Int(rest) }
            rest -= length
        }
        return nil
    }

    /// Fills the whole vector with random bytes from the kernel; returns how many came.
    package func fillFromSystemRandom() -> UInt64 {
        var done: UInt64 = 0
        for index in first..<end {
            // SAFETY: the slice is mapped RAM of iov_len bytes, of which `filled` are done.
            let slice = unsafe storage[index]
            var filled = 0
            // A pending signal cuts a long call short.
            while unsafe filled < slice.iov_len {
                let moved = retryingInterrupts {
                    unsafe getrandom(slice.iov_base + filled, slice.iov_len - filled, 0)
                }
                guard moved > 0 else { return done }
                filled += moved
                done += UInt64(moved)
            }
        }
        return done
    }
}

/// One checked byte of guest memory. Valid as long as the vector's queue lives.
@safe package struct GuestByte {
    private let pointer: UnsafeMutableRawPointer

    fileprivate init(_ pointer: UnsafeMutableRawPointer) {
        unsafe self.pointer = pointer
    }

    package func store(_ value: UInt8) {
        // SAFETY: the vector that this came from checked the byte, and its memory is mapped.
        unsafe vmm_store_8(pointer, value)
    }
}

/// Room for the vectors of one queue: one mapping, of which only what is used becomes resident.
/// Most requests have a few slices, but a hostile one has as many as the queue is long: so each
/// vector has a small room, of which many share a page, and a large one that is rarely touched.
package final class GuestVectorArena {
    /// 32 small rooms to a page; Linux's usual requests have up to three slices.
    private static let mostSmall = 8

    private let mapping: Mapping
    private let vectors: Int
    fileprivate let smallCapacity: Int
    fileprivate let capacity: Int
    private var next = 0

    /// Room for `vectors` vectors of up to `capacity` slices each.
    package init(vectors: Int, capacity: Int) throws(HostError) {
        self.vectors = vectors
        self.capacity = capacity
        smallCapacity = min(Self.mostSmall, capacity)
        self.mapping = unsafe try Mapping(
            anonymous: vectors * (smallCapacity + capacity) * MemoryLayout<iovec>.stride)
    }

    /// The next unused vector. At most as many as asked for at creation.
    package func makeVector() -> GuestVector {
        precondition(next < vectors, "no more vectors than the arena was made for")
        next += 1
        return GuestVector(self, next - 1)
    }

    // Small rooms come first, large ones after them; each belongs to one vector alone.

    fileprivate func small(_ index: Int) -> UnsafeMutablePointer<iovec> {
        // SAFETY: `index` is below `vectors`, so the room lies inside the zeroed mapping.
        unsafe slices + index * smallCapacity
    }

    fileprivate func large(_ index: Int) -> UnsafeMutablePointer<iovec> {
        // SAFETY: as above.
        unsafe slices + vectors * smallCapacity + index * capacity
    }

    private var slices: UnsafeMutablePointer<iovec> {
        // SAFETY: the mapping was made for this many, and holds nothing else.
        unsafe mapping.base.bindMemory(
            to: iovec.self, capacity: vectors * (smallCapacity + capacity))
    }
}

/// A vector that another thread uses until it says that it is done. The lender does not touch it
/// meanwhile, and keeps its queue.
package struct LentVector: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): lender and borrower hand the vector to and fro through locks,
    // and only one of them uses it at a time.
    package let vector: GuestVector

    package init(_ vector: GuestVector) {
        self.vector = vector
    }
}
