import CVMMLinux
import Glibc

/// Owns one mapping and unmaps it when released. The address is stable for the whole life.
@safe package final class Mapping: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): the two fields never change; what lies behind them is shared
    // memory by nature, and each user states its own rule.
    let base: UnsafeMutableRawPointer
    package let count: Int

    /// An anonymous, private, zeroed mapping of `count` bytes whose start is a multiple of
    /// `alignment` (a power of two, at least a page). Swap space is not reserved.
    package init(anonymous count: Int, alignment: Int = 4096) throws(HostError) {
        let slack = alignment > 4096 ? alignment : 0
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        let raw = unsafe mmap(nil, count + slack, PROT_READ | PROT_WRITE, flags, -1, 0)
        guard let start = unsafe raw, unsafe start != MAP_FAILED else {
            throw .last("map \(count) bytes of memory")
        }
        let address = UInt(bitPattern: start)
        let lead = Int((UInt(alignment) - address % UInt(alignment)) % UInt(alignment))
        // SAFETY: lead is at most slack, so both trims lie inside the mapping just made.
        if lead > 0 { unsafe munmap(start, lead) }
        if slack - lead > 0 { unsafe munmap(start + lead + count, slack - lead) }
        unsafe self.base = start + lead
        self.count = count
    }

    /// A shared mapping of the first `count` bytes of `file`.
    init(shared file: FileDescriptor, count: Int) throws(HostError) {
        let raw = unsafe mmap(
            nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, file.rawValue, 0)
        guard let start = unsafe raw, unsafe start != MAP_FAILED else {
            throw .last("map a descriptor")
        }
        unsafe self.base = start
        self.count = count
    }

    /// Asks the kernel for 2 MiB pages; it may decline, which costs speed only.
    func adviseHugePages() {
        // SAFETY: advice on our own live mapping.
        unsafe _ = madvise(base, count, MADV_HUGEPAGE)
    }

    /// Keeps the range out of core dumps: a guest's secrets do not belong in ours.
    func excludeFromCoreDump() {
        // SAFETY: as above.
        unsafe _ = madvise(base, count, MADV_DONTDUMP)
    }

    deinit {
        // SAFETY: whoever holds a pointer into the mapping also holds this object.
        unsafe munmap(base, count)
    }
}
