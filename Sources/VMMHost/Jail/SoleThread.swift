import CVMMLinux
import Glibc

/// What a process that has one thread may do to itself, on its way to become another program.
package enum SoleThread {
    /// Which of the two a fork made.
    package enum Side: Equatable, Sendable {
        case child
        case parent(of: Int32)
    }

    package static func fork() throws(HostError) -> Side {
        let child = vmm_fork()
        guard child >= 0 else { throw .last("start a process") }
        return child == 0 ? .child : .parent(of: child)
    }

    /// Closes all descriptors but the standard streams and these.
    package static func closeDescriptors(keeping kept: [Int32]) {
        var first: UInt32 = 3
        for number in Set(kept).sorted() where number >= 3 {
            if UInt32(number) > first { _ = vmm_close_range(first, UInt32(number) - 1) }
            first = UInt32(number) + 1
        }
        _ = vmm_close_range(first, .max)
    }

    /// Leaves the terminal, and what was started on it.
    package static func beginSession() throws(HostError) {
        guard setsid() >= 0 else { throw .last("begin a session") }
    }

    /// Has the standard streams be this file.
    package static func setStandardStreams(_ file: FileDescriptor) throws(HostError) {
        for number in Int32(0)...2 where dup2(file.rawValue, number) < 0 {
            throw .last("redirect a standard stream")
        }
    }

    /// A descriptor of this process, for `end(with:)` of a child.
    package static func handle() throws(HostError) -> FileDescriptor {
        let raw = vmm_own_process()
        guard raw >= 0 else { throw .last("open the process itself") }
        return FileDescriptor(owning: raw)
    }

    /// Has the kernel end the process with the one that started it, also if that has ended by now.
    package static func end(with parent: FileDescriptor) {
        _ = vmm_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL))
        if parent.isReady(.readable) { _exit(1) }
    }

    package static func become(user: UInt32, group: UInt32) throws(HostError) {
        guard vmm_become(user, group) == 0 else { throw .last("become the user", "\(user)") }
    }

    /// Becomes the program, with no environment; returns only to fail.
    package static func execute(_ path: String, _ words: [String]) throws(HostError) -> Never {
        var none = sigset_t()
        // SAFETY: the set lives for the length of the calls.
        unsafe sigemptyset(&none)
        unsafe sigprocmask(SIG_SETMASK, &none, nil)
        for number in [SIGPIPE, SIGXFSZ, SIGTTIN] { _ = signal(number, SIG_DFL) }
        var texts = unsafe words.map { unsafe strdup($0) }
        unsafe texts.append(nil)
        // SAFETY: the list ends with null and lives for the length of the call.
        unsafe texts.withUnsafeBufferPointer { unsafe _ = vmm_execute(path, $0.baseAddress) }
        throw .last("run", path)
    }

    /// Becomes the program and keeps the environment; returns only to fail.
    package static func executeAsIs(_ path: String, _ words: [String]) throws(HostError) -> Never {
        var texts = unsafe words.map { unsafe strdup($0) }
        unsafe texts.append(nil)
        // SAFETY: as above.
        unsafe texts.withUnsafeBufferPointer { texts in
            unsafe texts.baseAddress.map { unsafe _ = execv(path, $0) }
        }
        throw .last("run", path)
    }

    private static let forwarded = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2]

    /// Keeps the signals that `wait` hands on; before the child is started, so that none is lost.
    package static func holdSignals() {
        var set = Self.signals
        // SAFETY: the set lives for the length of the call.
        unsafe _ = sigprocmask(SIG_BLOCK, &set, nil)
    }

    private static var signals: sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in forwarded + [SIGCHLD] { unsafe sigaddset(&set, number) }
        return set
    }

    /// Waits for the child's end, hands on what signals come, and returns the status that a shell
    /// would tell.
    package static func wait(for child: Int32) -> Int32 {
        var set = signals
        while true {
            if let status = status(of: child, WNOHANG) { return status }
            var number: Int32 = 0
            // SAFETY: the kernel writes one number.
            unsafe _ = sigwait(&set, &number)
            if number != SIGCHLD { kill(child, number) }
        }
    }

    /// Waits for the end of a child that no signals are for; its status as above.
    static func status(of child: Int32) -> Int32 {
        while true {
            if let status = status(of: child, 0) { return status }
        }
    }

    private static func status(of child: Int32, _ options: Int32) -> Int32? {
        var status: Int32 = 0
        // SAFETY: the kernel writes one number.
        let ended = unsafe waitpid(child, &status, options)
        if ended < 0 { return errno == EINTR ? nil : 1 }
        guard ended == child else { return nil }
        let signal = status & 0x7f
        return signal == 0 ? status >> 8 & 0xff : 128 + signal
    }

    /// The most that the process may have of something; setrlimit(2).
    package enum Limit: String, CaseIterable, Sendable {
        case fileByteCount = "fsize"
        case descriptors = "no-file"
    }

    package static func set(_ limit: Limit, _ value: UInt64) throws(HostError) {
        let resource =
            switch limit {
            case .fileByteCount: __rlimit_resource_t(RLIMIT_FSIZE.rawValue)
            case .descriptors: __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
            }
        var pair = rlimit(rlim_cur: rlim_t(value), rlim_max: rlim_t(value))
        // SAFETY: the value lives for the length of the call.
        guard unsafe setrlimit(resource, &pair) == 0 else {
            throw .last("set the limit", "\(limit.rawValue)=\(value)")
        }
    }

    /// The user that this process is.
    package static var user: UInt32 { geteuid() }
    package static var group: UInt32 { getegid() }

    /// Microseconds of CPU time that the process has used.
    package static var processorMicroseconds: UInt64 {
        var time = timespec()
        // SAFETY: the kernel writes one value.
        unsafe _ = clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_nsec) / 1000
    }
}
