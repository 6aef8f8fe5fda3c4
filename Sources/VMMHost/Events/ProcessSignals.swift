import CVMMLinux
import Glibc

/// The process's signals, as events instead of interruptions.
package final class ProcessSignals {
    package let descriptor: FileDescriptor

    /// Blocks `signals` in this thread and all that it starts, and delivers them here instead.
    package init(_ signals: [Int32]) throws(HostError) {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for signal in signals { unsafe sigaddset(&set, signal) }
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
        let flags = Int32(SFD_CLOEXEC | SFD_NONBLOCK)
        let raw = unsafe signalfd(-1, &set, flags)
        guard raw >= 0 else { throw .last("receive signals") }
        descriptor = FileDescriptor(owning: raw)
    }

    /// The next pending signal's number, or nil.
    package func next() -> Int32? {
        var bytes: [UInt8] = []
        let size = MemoryLayout<signalfd_siginfo>.size
        guard descriptor.read(into: &bytes, limit: size) == .moved(size) else { return nil }
        // ssi_signo is the struct's first field, in host order (signalfd(2)).
        return Int32(bytes[0]) | Int32(bytes[1]) << 8
    }

    /// Ignores SIGPIPE: a peer that left is an error of a write, not the end of the process. And
    /// what else would end it for an error of one call.
    package static func ignoreBrokenPipes() {
        _ = signal(SIGPIPE, SIG_IGN)
        // So is a file at its limit of size (RLIMIT_FSIZE), which a guest can write up to.
        _ = signal(SIGXFSZ, SIG_IGN)
        // In the background of a shell, reading the terminal is an error too, and no reason to
        // stand still.
        _ = signal(SIGTTIN, SIG_IGN)
    }

    /// Installs an empty handler for the signal that makes KVM_RUN return.
    package static func prepareKick() {
        var action = sigaction()
        unsafe action.__sigaction_handler.sa_handler = { _ in }
        unsafe sigaction(kickSignal, &action, nil)
    }

    /// The signals that a monitor waits for.
    package static let interrupt = SIGINT
    package static let terminate = SIGTERM
    package static let hangUp = SIGHUP
    package static let windowChange = SIGWINCH
    /// What a tool's user asks for a report with.
    package static let report = SIGUSR1

    static var kickSignal: Int32 { vmm_sigrtmin() }
}
