import Foundation

/// A program started by a test. It is reaped by a thread of its own, which wakes all who wait on
/// `changed`.
final class ChildProcess: @unchecked Sendable {
    struct StartFailure: Error, CustomStringConvertible {
        let description: String
    }

    /// What is typed to a child that is gone is lost: it must not end all tests.
    private static let ignoresBrokenPipes: Void = { signal(SIGPIPE, SIG_IGN) }()

    let identifier: pid_t
    private let changed: NSCondition
    private var result: Int32?

    /// Starts `words` with these descriptors as its standard ones. The child leads a session, so
    /// that a terminal on its input becomes its controlling one only if it asks.
    init(
        _ words: [String], input: Int32, output: Int32, errors: Int32, changed: NSCondition
    ) throws {
        self.changed = changed
        _ = Self.ignoresBrokenPipes
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for (target, source) in [input, output, errors].enumerated() {
            posix_spawn_file_actions_adddup2(&actions, source, Int32(target))
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        // POSIX_SPAWN_SETSIGDEF, _SETSIGMASK and glibc's _SETSID.
        posix_spawnattr_setflags(&attributes, 0x04 | 0x08 | 0x80)

        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        defer { arguments.forEach { free($0) } }
        arguments.append(nil)
        var child: pid_t = 0
        let code = Pair.inheritance.withLock {
            posix_spawnp(&child, words[0], &actions, &attributes, arguments, environ)
        }
        guard code == 0 else {
            throw StartFailure(
                description: "\(words[0]) cannot be started: \(String(cString: strerror(code)))")
        }
        identifier = child
        Thread.detachNewThread { [self] in reap() }
    }

    /// Nil while it runs. The exit status, or 128 and the signal's number, as a shell tells it.
    var exitStatus: Int32? {
        changed.withLock { result }
    }

    /// The same for a caller that holds the lock of `changed`.
    var exitStatusLocked: Int32? { result }

    /// Does nothing to a process that has ended.
    func send(_ signal: Int32) {
        changed.withLock {
            if result == nil { kill(identifier, signal) }
        }
    }

    private func reap() {
        var info = siginfo_t()
        // First only wait: while we hold the lock to reap, nobody can signal a reused number.
        while waitid(P_PID, id_t(identifier), &info, WEXITED | WNOWAIT) != 0, errno == EINTR {}
        changed.withLock {
            var status: Int32 = 0
            waitpid(identifier, &status, 0)
            let signal = status & 0x7f
            result = signal == 0 ? (status >> 8) & 0xff : 128 + signal
            changed.broadcast()
        }
    }
}
