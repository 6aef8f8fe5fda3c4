import VMMHost

/// The system calls of each kind of thread: what all of a kind need, and what the devices ask for.
package struct ThreadRules: Sendable {
    private let needs: SandboxNeeds
    /// Requests come while the machine runs: files are opened, machines made and devices plugged.
    private let takesRequests: Bool

    package init(_ needs: SandboxNeeds, takesRequests: Bool) {
        self.needs = needs
        self.takesRequests = takesRequests
    }

    /// What threads of a role may do.
    package func rules(of role: ThreadRole) -> SystemCallRules {
        switch role {
        case .processor: Self.every + Self.processor
        case .loader: Self.every + SystemCallRules(.pread64)
        case .disk: Self.every + Self.loop + SandboxNeeds.imageCalls
        case .device: device
        case .api: Self.every + Self.loop + Self.listener
        case .control, .errand: control
        case .tool: SystemCallRules()
        }
    }

    /// What a switch may do whose sockets listen: take clients, hand on what they send, and remove
    /// the sockets at its end.
    package static var frameSwitch: SystemCallRules {
        every + loop + listener + SystemCallRules(.unlink, .lstat, .newfstatat)
    }

    private var device: SystemCallRules {
        Self.every + Self.loop + SystemCallRules(ioctl: DeviceRequests.interrupts) + needs.serving
    }

    /// The threads that the main one starts are held to its rules, too, and so it has all theirs:
    /// each adds its own, which are fewer.
    private var control: SystemCallRules {
        var rules = device + Self.processor + Self.building + needs.opening
        if takesRequests { rules.add(Self.listener + Self.opening) }
        return rules
    }

    // MARK: lists

    // Made when a thread starts and forgotten with its program: a sandbox takes no memory.

    private static let readWrite: UInt32 = 3
    /// MAP_SHARED, PRIVATE, FIXED, ANONYMOUS, NORESERVE, POPULATE and STACK: what we map, glibc for
    /// its heap and stacks, and liburing.
    private static let mapping: UInt32 = 0x2_c033
    private static let getName: UInt32 = 16

    /// Memory, locks, the log, and the end of a thread or the process, also a bad one. No memory is
    /// executable.
    private static var every: SystemCallRules {
        SystemCallRules(
            .read, .write, .readv, .writev, .close, .futex, .brk, .munmap, .mremap, .madvise,
            .poll, .rt_sigprocmask, .rt_sigreturn, .rt_sigaction, .sigaltstack, .getpid, .gettid,
            .exit, .exit_group, .clock_gettime, .getrandom, .sched_yield, .restart_syscall)
            + SystemCallRules(.mmap, .only(readWrite, at: 2), .only(mapping, at: 3))
            + SystemCallRules(.mprotect, .only(readWrite, at: 2))
            // To threads of this process alone.
            + SystemCallRules(.tgkill, .oneOf([UInt32(ProcessIdentifier.current)], at: 0))
            + SystemCallRules(.prctl, .oneOf([getName], at: 0))
            + SystemCallRules(ioctl: DeviceRequests.terminalRestoring)
    }

    private static var processor: SystemCallRules {
        SystemCallRules(ioctl: DeviceRequests.processor) + SystemCallRules(.eventfd2)
    }

    /// An event loop, its counters and its ring.
    private static var loop: SystemCallRules {
        SystemCallRules(
            .epoll_wait, .epoll_pwait, .epoll_ctl, .epoll_create1, .eventfd2)
            // Of the calling thread alone.
            + SystemCallRules(.sched_setaffinity, .oneOf([0], at: 0))
            + SystemCallRules(.sched_getaffinity, .oneOf([0], at: 0))
    }

    /// The next life of a machine, from open files, and its end.
    private static var building: SystemCallRules {
        SystemCallRules(.unlink, .lstat, .newfstatat, .pread64)
            + SystemCallRules(ioctl: DeviceRequests.machine) + SandboxNeeds.threadCalls
    }

    /// A server's thread.
    private static var listener: SystemCallRules {
        SystemCallRules(.accept4, .recvfrom, .recvmsg, .sendto, .sendmsg, .shutdown, .getsockopt)
            + SandboxNeeds.descriptorCalls
    }

    /// Files that a request names, core dumps among them. Which, is for landlock to say.
    private static var opening: SystemCallRules {
        SystemCallRules(
            .openat, .access, .statx, .lseek, .ftruncate, .pwrite64, .socketpair,
            .getsockname, .getpgrp) + SandboxNeeds.descriptorCalls
            + SandboxNeeds.statusCalls
            // Of this process alone.
            + SystemCallRules(.prlimit64, .oneOf([0], at: 0))
    }
}
