import CVMMLinux
import VMMBase

/// A checked range of guest RAM that a ring lives in. Every access is bounds-checked against the
/// window, is one volatile load or store, and the window keeps the RAM mapped.
@safe package struct GuestWindow {
    @usableFromInline let base: UnsafeMutableRawPointer
    @usableFromInline let count: Int
    private let memory: GuestMemory

    /// Nil unless the whole range is RAM and `address` is a multiple of `alignment`.
    package init?(_ memory: GuestMemory, at address: GuestAddress, count: Int, alignment: UInt64) {
        guard count > 0, address.rawValue % alignment == 0,
            let base = unsafe memory.pointer(at: address, count: UInt64(count))
        else { return nil }
        unsafe self.base = base
        self.count = count
        self.memory = memory
    }

    @inlinable
    func check(_ offset: Int, _ width: Int) {
        precondition(offset >= 0 && offset &+ width <= count, "a ring access lies in its window")
    }

    @inlinable
    package func load16(_ offset: Int) -> UInt16 {
        check(offset, 2)
        // SAFETY: checked above; so in the accesses below.
        return unsafe vmm_load_16(base + offset)
    }

    @inlinable
    package func load32(_ offset: Int) -> UInt32 {
        check(offset, 4)
        return unsafe vmm_load_32(base + offset)
    }

    @inlinable
    package func load64(_ offset: Int) -> UInt64 {
        check(offset, 8)
        return unsafe vmm_load_64(base + offset)
    }

    /// A load that later loads of what it announces cannot overtake.
    @inlinable
    package func loadAcquire16(_ offset: Int) -> UInt16 {
        check(offset, 2)
        return unsafe vmm_load_acquire_16(base + offset)
    }

    /// As above, of a whole word that the other side may write in pieces, the last piece last.
    @inlinable
    package func loadAcquire64(_ offset: Int) -> UInt64 {
        check(offset, 8)
        return unsafe vmm_load_acquire_64(base + offset)
    }

    @inlinable
    package func store16(_ offset: Int, _ value: UInt16) {
        check(offset, 2)
        unsafe vmm_store_16(base + offset, value)
    }

    @inlinable
    package func store32(_ offset: Int, _ value: UInt32) {
        check(offset, 4)
        unsafe vmm_store_32(base + offset, value)
    }

    /// A store that earlier stores of what it announces cannot fall behind.
    @inlinable
    package func storeRelease16(_ offset: Int, _ value: UInt16) {
        check(offset, 2)
        unsafe vmm_store_release_16(base + offset, value)
    }

    /// As above.
    @inlinable
    package func storeRelease64(_ offset: Int, _ value: UInt64) {
        check(offset, 8)
        unsafe vmm_store_release_64(base + offset, value)
    }

    /// Orders all earlier stores before all later loads, which acquire and release do not.
    @inlinable
    package static func fullBarrier() {
        vmm_full_barrier()
    }
}
