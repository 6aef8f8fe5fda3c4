import VMMHost

/// What a device takes of the host beyond what every thread has.
package struct SandboxNeeds: Sendable {
    /// The calls of the thread that serves it.
    package var serving: SystemCallRules
    /// The calls that open it and give it up, on the main thread.
    package var opening: SystemCallRules

    package init(
        serving: SystemCallRules = SystemCallRules(), opening: SystemCallRules = SystemCallRules()
    ) {
        self.serving = serving
        self.opening = opening
    }

    package mutating func add(_ other: SandboxNeeds) {
        serving.add(other.serving)
        opening.add(other.opening)
    }

    package static func + (left: SandboxNeeds, right: SandboxNeeds) -> SandboxNeeds {
        var sum = left
        sum.add(right)
        return sum
    }
}

// What several kinds of devices have in common.
extension SandboxNeeds {
    /// Files and pipes that are read and written.
    package static var streams: SandboxNeeds {
        SandboxNeeds(
            serving: SystemCallRules(.poll, .ftruncate) + statusCalls
                + SystemCallRules(ioctl: DeviceRequests.terminal) + timerCalls + descriptorCalls)
    }

    /// Unix sockets, on either side.
    package static var sockets: SandboxNeeds {
        SandboxNeeds(
            serving: SystemCallRules(
                .connect, .accept4, .sendto, .recvfrom, .sendmsg, .recvmsg, .shutdown, .getsockopt,
                .setsockopt, .poll)
                + SystemCallRules(.socket, .oneOf([localFamily], at: 0))
                + SystemCallRules(ioctl: DeviceRequests.socket) + timerCalls + descriptorCalls,
            opening: SystemCallRules(.bind, .listen, .fchmod, .lstat, .newfstatat, .unlink))
    }

    private static let localFamily: UInt32 = 1

    /// Disk images, with a thread for slow work.
    package static var images: SandboxNeeds {
        SandboxNeeds(serving: imageCalls + threadCalls)
    }

    /// What is done with the open files of an image, by any engine.
    static var imageCalls: SystemCallRules {
        SystemCallRules(
            .pread64, .pwrite64, .preadv, .pwritev, .fsync, .fdatasync, .fallocate, .ftruncate,
            .lseek, .io_uring_setup, .io_uring_enter, .io_uring_register, .io_setup,
            .io_destroy, .io_submit, .io_getevents)
            + SystemCallRules(ioctl: DeviceRequests.blockDevice) + timerCalls + statusCalls
    }

    /// What an open file is and how large.
    static var statusCalls: SystemCallRules { SystemCallRules(.fstat) }

    /// A timer of the loop's.
    package static var timerCalls: SystemCallRules {
        SystemCallRules(.timerfd_create, .timerfd_settime)
    }

    /// A new thread, and how it confines itself.
    static var threadCalls: SystemCallRules {
        SystemCallRules(
            .set_robust_list, .rseq, .seccomp, .landlock_restrict_self, .capget,
            .capset)
            + SystemCallRules(.sched_setaffinity, .oneOf([0], at: 0))
            + SystemCallRules(.clone, .oneOf([threadFlags], at: 0, .register))
            + SystemCallRules(
                .prctl,
                .oneOf([setName, noNewPrivileges, dropBounding, ambient, scheduleCores], at: 0))
    }

    /// What glibc's pthread_create asks clone for, and what no process could be made with:
    /// CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID.
    private static let threadFlags: UInt32 = 0x003d_0f00
    private static let setName: UInt32 = 15
    private static let noNewPrivileges: UInt32 = 38
    private static let dropBounding: UInt32 = 24
    private static let ambient: UInt32 = 47
    private static let scheduleCores: UInt32 = 62

    /// Copies of descriptors, their flags, and locks of files (fcntl).
    static var descriptorCalls: SystemCallRules {
        // F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_OFD_SETLK, F_DUPFD_CLOEXEC.
        SystemCallRules(.fcntl, .oneOf([1, 2, 3, 4, 37, 1030], at: 1))
    }
}
