import CVMMLinux
import Glibc

/// The kernel's filter of system calls (seccomp(2)).
package enum SystemCallFilter {
    /// Filters the calling thread's calls from now on, and those of threads that it starts, by a
    /// program of the kernel's packet filter language. The thread has given up new privileges.
    package static func install(_ program: [UInt64]) throws(HostError) {
        // SAFETY: an instruction is eight bytes; the kernel copies the program during the call.
        let result = unsafe program.withUnsafeBytes { bytes in
            var header = unsafe sock_fprog(
                len: UInt16(clamping: bytes.count / 8),
                filter: UnsafeMutablePointer(
                    mutating: bytes.bindMemory(to: sock_filter.self).baseAddress))
            return unsafe vmm_seccomp(UInt32(SECCOMP_SET_MODE_FILTER), 0, &header)
        }
        guard result == 0 else { throw .last("filter system calls") }
    }

    /// False for a kernel without filters, or without the one verdict `verdict`.
    package static func knows(verdict: UInt32) -> Bool {
        // The lower half is the verdict's own: which error, for one.
        var verdict = verdict & 0xffff_0000
        // SAFETY: the kernel reads four bytes.
        return unsafe vmm_seccomp(UInt32(SECCOMP_GET_ACTION_AVAIL), 0, &verdict) == 0
    }

    /// False for a kernel without filters.
    package static var isThere: Bool { knows(verdict: 0x7fff_0000) }

    /// The process's end when a filter traps a call.
    package static let violationStatus: Int32 = 148

    /// Ends the process when a filter traps a call: with a line that names thread and call, the
    /// terminal restored, and `violationStatus`, which is Firecracker's for this.
    package static func reportViolations() {
        var action = sigaction()
        action.sa_flags = SA_SIGINFO
        // SAFETY: the handler keeps to calls that signal-safety(7) allows, and no allocation.
        unsafe action.__sigaction_handler.sa_sigaction = { _, info, _ in
            unsafe SystemCallFilter.reportViolation(info.map { unsafe vmm_refused_call($0) } ?? -1)
        }
        unsafe sigaction(SIGSYS, &action, nil)
    }

    private static func reportViolation(_ number: Int32) {
        TerminalSettings.restoreAll()
        say("swiftlet: the thread '")
        var name: InlineArray<16, UInt8> = .init(repeating: 0)
        // SAFETY: the kernel writes 16 bytes at most, a zero among them.
        unsafe withUnsafeMutableBytes(of: &name) { bytes in
            guard let start = bytes.baseAddress else { return }
            unsafe _ = vmm_get_thread_name(start.assumingMemoryBound(to: CChar.self))
            unsafe _ = write(2, start, strnlen(start.assumingMemoryBound(to: CChar.self), 16))
        }
        say("' made the system call ")
        unsafe SystemCallName.withBytes(of: number) { start, count in
            unsafe _ = write(2, start, count)
        }
        say(" (")
        sayNumber(number)
        say("), which its sandbox forbids\n")
        _exit(violationStatus)
    }

    private static func say(_ text: StaticString) {
        // SAFETY: a literal's bytes are there for good.
        unsafe _ = write(2, text.utf8Start, text.utf8CodeUnitCount)
    }

    private static func sayNumber(_ number: Int32) {
        // Ten digits are all that 32 bits have.
        var divisor: UInt32 = 1_000_000_000
        let value = number.magnitude
        while divisor > 1, value < divisor { divisor /= 10 }
        while divisor > 0 {
            var digit = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: value / divisor % 10)
            // SAFETY: one byte of our own.
            unsafe _ = write(2, &digit, 1)
            divisor /= 10
        }
    }
}
