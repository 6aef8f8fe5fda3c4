import CVMMLinux
import Glibc
import VMMBase

/// The guest's RAM. The guest writes it at any time, so nothing hands out a plain pointer or a
/// span: fields are loaded once, blocks are copied, and I/O goes through `GuestVector`.
/// Any thread may use it.
@safe package final class GuestMemory: @unchecked Sendable {
    // SAFETY (@unchecked Sendable): the region table never changes after init; RAM itself is
    // shared with the guest and accessed by volatile loads, stores and copies only.
    @usableFromInline
    @unsafe struct Region {
        @usableFromInline let start: UInt64
        @usableFromInline let count: UInt64
        @usableFromInline let base: UnsafeMutableRawPointer

        init(range: GuestRange, mapping: Mapping) {
            unsafe self.start = range.start.rawValue
            unsafe self.count = range.count
            unsafe self.base = mapping.base
        }
    }

    @usableFromInline let regions: [Region]
    private let mappings: [Mapping]
    /// The guest-physical ranges of RAM, ascending.
    package let ranges: [GuestRange]

    /// A huge page: RAM whose host and guest addresses agree modulo this size can be mapped by
    /// KVM with huge pages; 4 KiB mappings cost six times the exits of a boot (TESTBED, lesson 2).
    package static let hugePageSize = 2 << 20

    /// Anonymous memory for each range, aligned for huge pages and by default advised for them.
    package init(ranges: [GuestRange], usesHugePages: Bool = true) throws(HostError) {
        var mappings: [Mapping] = []
        for range in ranges {
            let mapping = try Mapping(
                anonymous: Int(clamping: range.count), alignment: Self.hugePageSize)
            if usesHugePages { mapping.adviseHugePages() }
            mapping.excludeFromCoreDump()
            mappings.append(mapping)
        }
        self.mappings = mappings
        self.ranges = ranges
        unsafe self.regions = zip(ranges, mappings).map { unsafe Region(range: $0, mapping: $1) }
    }

    /// Size of all RAM in bytes.
    package var byteCount: UInt64 { ranges.reduce(0) { $0 + $1.count } }

    /// Where `count` bytes at `address` lie in this process; nil unless one region holds all of
    /// them.
    @inlinable
    func pointer(at address: GuestAddress, count: UInt64) -> UnsafeMutableRawPointer? {
        // By index: swift-format breaks a loop over unsafe elements.
        for index in unsafe regions.indices {
            let region = unsafe regions[index]
            let offset = unsafe address.rawValue &- region.start
            if unsafe offset < region.count {
                // SAFETY: offset + count is at most the region's size, without overflow.
                return unsafe count <= region.count &- offset ? region.base + Int(offset) : nil
            }
        }
        return nil
    }

    /// True when all of the range is RAM of one region.
    package func contains(_ address: GuestAddress, count: UInt64) -> Bool {
        unsafe pointer(at: address, count: count) != nil
    }

    /// The slots that KVM needs: guest range and host address of each region.
    var slots: [(range: GuestRange, hostAddress: UInt64)] {
        unsafe zip(ranges, regions).map { ($0, unsafe UInt64(UInt(bitPattern: $1.base))) }
    }
}

// Fields and blocks.
extension GuestMemory {
    /// Two little-endian 64-bit loads, or nil outside RAM: a ring's descriptor.
    @inlinable
    package func loadPair(at address: GuestAddress) -> (low: UInt64, high: UInt64)? {
        guard let pointer = unsafe pointer(at: address, count: 16) else { return nil }
        // SAFETY: pointer(at:count:) checked sixteen bytes.
        return unsafe (vmm_load_64(pointer), vmm_load_64(pointer + 8))
    }

    /// Copies host bytes into RAM; false when they do not fit in one region.
    package func copyIn(_ bytes: [UInt8], at address: GuestAddress) -> Bool {
        guard let target = unsafe pointer(at: address, count: UInt64(bytes.count)) else {
            return false
        }
        // SAFETY: both sides hold bytes.count bytes and cannot overlap.
        unsafe bytes.withUnsafeBytes { source in
            unsafe UnsafeMutableRawBufferPointer(start: target, count: source.count)
                .copyMemory(from: source)
        }
        return true
    }

    /// Copies RAM out, or nil when the range is not RAM.
    package func copyOut(_ address: GuestAddress, count: Int) -> [UInt8]? {
        guard count >= 0, let source = unsafe pointer(at: address, count: UInt64(count)) else {
            return nil
        }
        var bytes = [UInt8](repeating: 0, count: count)
        // SAFETY: as above.
        unsafe bytes.withUnsafeMutableBytes { target in
            unsafe target.copyMemory(from: UnsafeRawBufferPointer(start: source, count: count))
        }
        return bytes
    }

    /// How much of each huge page is read aside to see whether it is zeros; it stays in a core's
    /// own cache.
    private static let probeBytes = 64 << 10

    /// Reads part of a file into RAM that nothing was written to yet. Zeros at the start of a huge
    /// page are left out, and a page that holds nothing else is never touched: a fifth of a Linux
    /// kernel's ELF file is its empty .bss, and memory that is not there costs no time and no room.
    package func load(
        _ file: FileDescriptor, offset: UInt64, count: UInt64, at address: GuestAddress
    ) throws(HostError) {
        guard let target = unsafe pointer(at: address, count: count) else {
            throw HostError("load a file outside guest memory", code: EFAULT)
        }
        let probe = UnsafeMutableRawPointer.allocate(
            byteCount: Self.probeBytes, alignment: Self.probeBytes)
        defer { unsafe probe.deallocate() }
        let hugePage = UInt64(Self.hugePageSize)
        var done: UInt64 = 0
        while done < count {
            let end = min(count, done + hugePage - (address.rawValue + done) % hugePage)
            while done < end {
                let part = Int(min(end - done, UInt64(Self.probeBytes)))
                try unsafe Self.read(file, at: offset + done, into: probe, count: part)
                // It starts with zero and equals itself one byte on: all zeros.
                let isZero =
                    unsafe probe.load(as: UInt8.self) == 0
                    && memcmp(probe, probe + 1, part - 1) == 0
                done += UInt64(part)
                if isZero { continue }
                // SAFETY: target holds `count` bytes; this part and the rest lie before `end`.
                unsafe (target + Int(done) - part).copyMemory(from: probe, byteCount: part)
                try unsafe Self.read(
                    file, at: offset + done, into: target + Int(done), count: Int(end - done))
                done = end
            }
        }
    }

    /// Reads until all is there.
    private static func read(
        _ file: FileDescriptor, at offset: UInt64, into target: UnsafeMutableRawPointer, count: Int
    ) throws(HostError) {
        var done = 0
        while done < count {
            // SAFETY: the caller's target holds `count` bytes, of which `done` are filled.
            let moved = retryingInterrupts {
                unsafe pread(
                    file.rawValue, target + done, count - done,
                    off_t(clamping: offset + UInt64(done)))
            }
            guard moved >= 0 else { throw .last("read") }
            guard moved > 0 else { throw HostError("read past the end", code: EIO) }
            done += moved
        }
    }
}
