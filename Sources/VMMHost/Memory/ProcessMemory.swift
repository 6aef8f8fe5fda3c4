import CVMMLinux
import Glibc

/// What this process itself takes of the host's memory.
package enum ProcessMemory {
    /// Has all threads allocate from one heap: an arena for each costs pages, and our threads
    /// allocate when a device starts, not while it works. Before the first thread starts.
    package static func useOneHeap() {
        _ = mallopt(M_ARENA_MAX, 1)
    }

    /// Gives back what start-up allocated and freed, down to the page.
    package static func trimHeap() {
        _ = malloc_trim(0)
    }

    /// Unmaps the program's code, so that only what runs from now on comes back, page by page from
    /// the page cache. Start-up walks through most of the Swift runtime once: 4 MB of resident
    /// pages that a running monitor never touches again. Costs some twenty minor faults. Any
    /// thread.
    package static func dropStartupCode() {
        let page = UInt(sysconf(Int32(_SC_PAGESIZE)))
        let start = unsafe UInt(bitPattern: vmm_code_start()) & ~(page - 1)
        let end = unsafe UInt(bitPattern: vmm_code_end()) & ~(page - 1)
        guard end > start else { return }
        // SAFETY: the range is file-backed and never written, so dropping its pages loses nothing.
        unsafe _ = madvise(
            vmm_code_start() - Int(UInt(bitPattern: vmm_code_start()) - start), Int(end - start),
            MADV_DONTNEED)
    }
}
