import Foundation

/// A command on the host that ends soon.
struct HostCommand {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    let status: Int32
    let output: String
    let errors: String

    /// Runs it to its end; `input` stays open for its time.
    init(_ words: [String], input: Int32? = nil, within seconds: Double = 300) throws {
        let changed = NSCondition()
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        defer { close(null) }
        let outputPipe = try Pair.pipe()
        let errorPipe = try Pair.pipe()
        let process = try ChildProcess(
            words, input: input ?? null, output: outputPipe.far, errors: errorPipe.far,
            changed: changed)
        close(outputPipe.far)
        close(errorPipe.far)
        let output = Capture(outputPipe.near, changed: changed)
        let errors = Capture(errorPipe.near, changed: changed)
        let deadline = Date(timeIntervalSinceNow: seconds)
        changed.lock()
        defer { changed.unlock() }
        while process.exitStatusLocked == nil || !output.isOverLocked || !errors.isOverLocked {
            guard changed.wait(until: deadline) else {
                kill(process.identifier, SIGKILL)
                throw Failure(description: "\(words) did not end within \(seconds) s")
            }
        }
        status = process.exitStatusLocked ?? -1
        self.output = output.textLocked
        self.errors = errors.textLocked
    }

    /// Runs a command that has to succeed, and returns what it printed.
    @discardableResult
    static func run(_ words: String..., input: Int32? = nil) throws -> String {
        let result = try HostCommand(words, input: input)
        guard result.status == 0 else {
            throw Failure(
                description: "\(words) ended with \(result.status): \(result.errors)")
        }
        return result.output
    }
}

/// Two connected descriptors: ours, and the one that a child gets. No other child inherits them.
struct Pair {
    let near: Int32
    let far: Int32

    /// Descriptors that are made before they can be kept from children, and children, are made
    /// under this lock.
    static let inheritance = NSLock()

    /// `near` reads.
    static func pipe() throws -> Pair {
        var ends: [Int32] = [0, 0]
        return try inheritance.withLock {
            guard Glibc.pipe(&ends) == 0 else { throw HostCommand.Failure(description: "no pipe") }
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
            return Pair(near: ends[0], far: ends[1])
        }
    }

    /// `near` is the terminal program's side, `far` the terminal.
    static func terminal() throws -> Pair {
        let near = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        var locked: Int32 = 0
        var number: Int32 = 0
        // TIOCSPTLCK and TIOCGPTN.
        guard near >= 0, ioctl(near, 0x4004_5431, &locked) == 0,
            ioctl(near, 0x8004_5430, &number) == 0
        else { throw HostCommand.Failure(description: "no pseudo-terminal") }
        var size = winsize(ws_row: 40, ws_col: 123, ws_xpixel: 0, ws_ypixel: 0)
        _ = ioctl(near, UInt(TIOCSWINSZ), &size)
        return Pair(near: near, far: open("/dev/pts/\(number)", O_RDWR | O_NOCTTY | O_CLOEXEC))
    }
}
