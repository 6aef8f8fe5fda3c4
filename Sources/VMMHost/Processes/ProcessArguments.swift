import CVMMLinux

/// What this process was started with.
package enum ProcessArguments {
    /// The words of the command line, the program's name first, also where there is no /proc. Nil
    /// when the environment was changed before.
    package static var all: [String]? {
        var count = 0
        // SAFETY: the kernel put the list and its texts on the stack, where they stay.
        guard let list = unsafe vmm_initial_arguments(&count) else { return nil }
        return (0..<count).compactMap { index in
            unsafe list[index].map { unsafe String(cString: $0) }
        }
    }
}
