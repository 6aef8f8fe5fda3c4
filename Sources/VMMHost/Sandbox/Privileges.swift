import CVMMLinux
import Glibc

/// Some of Linux's capabilities (capabilities(7)).
package struct Capabilities: OptionSet, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    package static let networkAdministration = Capabilities(rawValue: 1 << UInt64(CAP_NET_ADMIN))
    /// Files of whatever user.
    package static let files = Capabilities(
        rawValue: 1 << UInt64(CAP_DAC_OVERRIDE) | 1 << UInt64(CAP_DAC_READ_SEARCH))
}

/// What this process, or one thread of it, may do beyond what any other program may.
package enum Privileges {
    /// No program that is executed from now on has more rights than we. The calling thread, and
    /// those that it starts.
    package static func forbidNew() throws(HostError) {
        guard vmm_prctl(PR_SET_NO_NEW_PRIVS, 1) == 0 else { throw .last("forbid new privileges") }
    }

    /// Gives up the calling thread's capabilities but those of `keeping`, in all of the kernel's
    /// five sets, for good.
    package static func drop(keeping: Capabilities = []) throws(HostError) {
        // Only who may drop from the bounding set can gain by it; EINVAL ends the list.
        var number: UInt = 0
        while number < 64, vmm_prctl(PR_CAPBSET_DROP, number) == 0 { number += 1 }
        _ = vmm_prctl(PR_CAP_AMBIENT, clearAmbient)
        guard vmm_keep_capabilities(keeping.rawValue) == 0 else {
            throw .last("drop capabilities")
        }
    }

    /// A program that root's process executes has no capabilities but these, and the one by which
    /// it drops them in turn.
    package static func bound(to kept: Capabilities) throws(HostError) {
        let kept = kept.rawValue | 1 << UInt64(CAP_SETPCAP)
        for number in 0..<64 as Range<UInt> where kept & 1 << number == 0 {
            // EINVAL: the kernel has no such capability.
            guard vmm_prctl(PR_CAPBSET_DROP, number) == 0 || errno == EINVAL else {
                throw .last("drop capabilities")
            }
        }
        // Root's programs also get what their parent's are to inherit.
        _ = vmm_prctl(PR_CAP_AMBIENT, clearAmbient)
        guard vmm_keep_capabilities(kept) == 0 else { throw .last("drop capabilities") }
    }

    /// PR_CAP_AMBIENT_CLEAR_ALL; a kernel without the set has nothing to clear.
    private static let clearAmbient: UInt = 4

    /// What the process makes from now on is for its own user alone.
    package static func keepFilesPrivate() {
        umask(0o077)
    }

    /// Has this process's memory neither read by others of the same user nor written to core
    /// files.
    package static func hideMemory() {
        _ = vmm_prctl(PR_SET_DUMPABLE, 0)
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        // SAFETY: the value lives for the length of the call.
        unsafe _ = setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
    }

    /// Whether the kernel can keep hyperthreads of one core apart; a host without them is none that
    /// cannot. Asks for nothing.
    package static var canClaimCores: Bool { vmm_know_cores() != EINVAL }

    /// Has the kernel run nothing else on the other hyperthreads of a core that runs the process,
    /// or the calling thread alone (PR_SCHED_CORE). False where it cannot: a host without
    /// hyperthreads needs it not.
    @discardableResult
    package static func claimCores(forProcess: Bool) -> Bool {
        vmm_schedule_cores(forProcess ? 1 : 0) == 0
    }
}
