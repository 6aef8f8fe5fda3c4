import CVMMLinux
import Glibc
import Synchronization

/// The settings of the terminal that the process was started on: raw while a guest's console is
/// there, and as they were before at the end.
package enum TerminalSettings {
    @unsafe private struct Saved {
        var descriptor: Int32
        var settings: termios
    }

    /// The one terminal whose settings were changed. Filled once and never freed, because a
    /// signal handler may read it at any time.
    private static let saved = Atomic<UInt>(0)

    private static var savedPointer: UnsafeMutablePointer<Saved>? {
        // SAFETY: zero, or the address of memory that was initialised before it was published.
        unsafe UnsafeMutablePointer(bitPattern: saved.load(ordering: .acquiring))
    }

    /// Makes the terminal behind `descriptor` pass every byte on as it is. Nothing happens when it
    /// is no terminal, when this was done before, or in the background, where the attempt would
    /// stop the process (SIGTTOU). Any thread; the descriptor must stay open to the end.
    package static func makeRaw(_ descriptor: FileDescriptor) throws(HostError) {
        let raw = descriptor.rawValue
        guard descriptor.isTerminal else { return }
        let foreground = tcgetpgrp(raw)
        guard foreground < 0 || foreground == getpgrp() else { return }
        var settings = termios()
        guard unsafe tcgetattr(raw, &settings) == 0 else {
            throw .last("read the settings of the terminal")
        }
        guard unsafe savedPointer == nil else { return }
        // SAFETY: initialised before it is published, never freed, never written again.
        let memory = UnsafeMutablePointer<Saved>.allocate(capacity: 1)
        unsafe memory.initialize(to: Saved(descriptor: raw, settings: settings))
        let (isFirst, _) = saved.compareExchange(
            expected: 0, desired: UInt(bitPattern: memory), ordering: .acquiringAndReleasing)
        guard isFirst else {
            unsafe memory.deallocate()
            return
        }
        unsafe cfmakeraw(&settings)
        guard unsafe tcsetattr(raw, TCSANOW, &settings) == 0 else {
            throw .last("make the terminal raw")
        }
    }

    /// Gives the terminal its settings back. Call it on every way out; any thread, any number of
    /// times, also from a signal handler (only async-signal-safe calls, signal-safety(7)).
    package static func restoreAll() {
        guard let saved = unsafe savedPointer else { return }
        // A process in the background is stopped by tcsetattr unless SIGTTOU is blocked.
        var blocked = sigset_t()
        var before = sigset_t()
        unsafe sigemptyset(&blocked)
        unsafe sigaddset(&blocked, SIGTTOU)
        unsafe pthread_sigmask(SIG_BLOCK, &blocked, &before)
        // SAFETY: the pointer was published after its memory was initialised, and stays valid.
        unsafe _ = tcsetattr(saved.pointee.descriptor, TCSANOW, &saved.pointee.settings)
        unsafe pthread_sigmask(SIG_SETMASK, &before, nil)
    }

    /// Makes raw a terminal that is ours alone and needs no restoring.
    static func makeRaw(own descriptor: FileDescriptor) throws(HostError) {
        var settings = termios()
        guard unsafe tcgetattr(descriptor.rawValue, &settings) == 0 else {
            throw .last("read the settings of a pseudo-terminal")
        }
        unsafe cfmakeraw(&settings)
        guard unsafe tcsetattr(descriptor.rawValue, TCSANOW, &settings) == 0 else {
            throw .last("make a pseudo-terminal raw")
        }
    }
}
