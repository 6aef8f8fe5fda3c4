import CVMMLinux
import Glibc

/// What the kernel lets this process have.
package enum ProcessLimits {
    private static let descriptors = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)

    /// Allows as many open descriptors as the administrator does. The lower limit that a shell
    /// sets is there for programs that use select(2), which we do not.
    package static func raiseDescriptorLimit() {
        var limit = rlimit()
        // SAFETY: the value lives for the length of the calls.
        guard unsafe getrlimit(descriptors, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        unsafe _ = setrlimit(descriptors, &limit)
    }

    /// How many descriptors may be open at once.
    package static var descriptorLimit: Int {
        var limit = rlimit()
        // SAFETY: as above.
        guard unsafe getrlimit(descriptors, &limit) == 0 else { return 1024 }
        return Int(clamping: limit.rlim_cur)
    }
}
