import CVMMLinux
import Glibc

/// Whether a descriptor can be used without waiting, and what a terminal looks like.
extension FileDescriptor {
    /// The direction of a transfer.
    package enum Readiness: Sendable {
        case readable, writable
    }

    /// True when a transfer would not wait, or becomes so within `milliseconds`; also true after
    /// a hangup, because the transfer then fails at once. Any thread.
    package func isReady(_ readiness: Readiness, waitingMilliseconds: Int32 = 0) -> Bool {
        let events = readiness == .readable ? POLLIN : POLLOUT
        var entry = pollfd(fd: rawValue, events: Int16(events), revents: 0)
        // SAFETY: one entry, which lives for the length of the call.
        let ready = retryingInterrupts { unsafe poll(&entry, 1, waitingMilliseconds) }
        return ready > 0
    }

    /// A terminal's size in characters; nil for anything that is no terminal.
    package var windowSize: (columns: UInt16, rows: UInt16)? {
        var size = winsize()
        guard ioctl(VMM_TIOCGWINSZ, with: &size) == 0 else { return nil }
        return (size.ws_col, size.ws_row)
    }

    /// For descriptors of calls that cannot ask for it at once.
    func closeOnExec() throws(HostError) {
        guard vmm_fcntl(rawValue, F_SETFD, FD_CLOEXEC) == 0 else {
            throw .last("set the flags of a descriptor")
        }
    }
}
