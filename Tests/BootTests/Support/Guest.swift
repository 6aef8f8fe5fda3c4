import Foundation

/// What a test boots. The standard is a small guest whose console is the serial port on the
/// monitor's standard input and output.
struct Boot {
    var kernel = Kernel.standard
    /// Runs as `/test.sh`; `say KEY VALUE` tells the test something. Without it the guest gives a
    /// shell.
    var script: String?
    /// Programs of `Bed.guests` that lie beside the script.
    var programs: [String] = []
    /// Other files beside the script.
    var files: [String: Data] = [:]
    /// Added to the kernel's command line.
    var kernelWords: [String] = []
    var consoleWords = ["console=ttyS0"]
    var cpus = "boot=1"
    var memory = "size=256M"
    var serial: String? = "tty"
    var console: String? = "off"
    /// More options for the monitor.
    var options: [String] = []
    /// Standard input, output and errors are a terminal.
    var onTerminal = false

    init(_ script: String? = nil) {
        self.script = script
    }

    /// Connects its devices like this.
    mutating func use(_ connection: Connection) {
        kernel = connection.kernel
        options += [
            "--platform", "transport=\(connection.transport),ring=\(connection.ring)",
        ]
    }

    var commandLine: String {
        let common = ["quiet", "8250.nr_uarts=1", "panic=0", "reboot=k"]
        return (consoleWords + common + kernelWords).joined(separator: " ")
    }

    func arguments(_ scratch: Scratch) throws -> [String] {
        var words = [
            try Bed.monitor, "--kernel", try kernel.path, "--initramfs", try initramfs(scratch),
            "--cmdline", commandLine, "--cpus", cpus, "--memory", memory,
        ]
        if let serial { words += ["--serial", serial] }
        if let console { words += ["--console", console] }
        if let mode = Bed.seccomp, !options.contains("--seccomp") { words += ["--seccomp", mode] }
        return words + options
    }

    /// The cached one, with the script in a second archive behind it.
    func initramfs(_ scratch: Scratch) throws -> String {
        guard let script else { return try kernel.initramfs }
        var archive = Archive()
        archive.add("test.sh", Self.prelude + script + "\n")
        for program in programs {
            let content = try Data(contentsOf: URL(filePath: Bed.guests + "/" + program))
            archive.add(program, [UInt8](content))
        }
        for (name, content) in files { archive.add(name, [UInt8](content)) }
        archive.finish()
        let base = try Data(contentsOf: URL(filePath: try kernel.initramfs))
        let padding = Data(count: (512 - base.count % 512) % 512)
        let path = scratch("initramfs-\(UInt32.random(in: 0...UInt32.max))")
        try (base + padding + archive.bytes).write(to: URL(filePath: path))
        return path
    }

    private static let prelude = """
        say() { echo "= $*"; }
        fail() { echo "= failed $*"; exit 1; }

        """

    /// Its files go to `scratch`, which lives as long as the guest.
    func start(_ scratch: Scratch) throws -> Guest {
        try Guest(arguments(scratch), in: scratch, onTerminal: onTerminal)
    }

    /// Boots the guest and waits until its script has ended well and the monitor too.
    func run(within seconds: Double = Guest.patience) throws -> Guest {
        let guest = try start(Scratch())
        try guest.finish(within: seconds)
        return guest
    }
}

/// One run of the monitor, killed at the end of the test if it still lives then.
final class Guest {
    /// Long enough for a boot in a busy bed; a test that waits for it all has failed.
    static let patience = 240.0

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    let scratch: Scratch
    let process: ChildProcess
    /// Its standard output, or all that appears on its terminal.
    let console: Capture
    /// Its standard error; the same as `console` on a terminal.
    let errors: Capture
    /// The terminal itself, to look at its settings.
    let terminal: Int32?
    /// What they were before the monitor started.
    let firstSettings: [UInt32]
    private let changed = NSCondition()
    private let input: Int32

    init(_ words: [String], in scratch: Scratch, onTerminal: Bool = false) throws {
        self.scratch = scratch
        if onTerminal {
            let pair = try Pair.terminal()
            input = dup(pair.near)
            terminal = pair.far
            firstSettings = Self.settings(of: pair.far)
            process = try ChildProcess(
                words, input: pair.far, output: pair.far, errors: pair.far, changed: changed)
            console = Capture(pair.near, changed: changed)
            errors = console
        } else {
            let inputPipe = try Pair.pipe()
            let outputPipe = try Pair.pipe()
            let errorPipe = try Pair.pipe()
            input = inputPipe.far
            terminal = nil
            firstSettings = []
            process = try ChildProcess(
                words, input: inputPipe.near, output: outputPipe.far, errors: errorPipe.far,
                changed: changed)
            close(inputPipe.near)
            close(outputPipe.far)
            close(errorPipe.far)
            console = Capture(outputPipe.near, changed: changed)
            errors = Capture(errorPipe.near, changed: changed)
        }
    }

    deinit {
        process.send(SIGKILL)
        close(input)
        if let terminal { close(terminal) }
    }

    /// Waits until `text` was printed so many times.
    func wait(
        for text: String, times: Int = 1, in capture: Capture? = nil,
        within seconds: Double = Guest.patience
    ) throws {
        let capture = capture ?? console
        try wait("\(times) x '\(text)'", within: seconds) {
            if capture.countLocked(of: text) >= times { return true }
            if self.process.exitStatusLocked != nil, capture.isOverLocked || self.terminal != nil {
                throw Failure(description: "the monitor ended before it printed '\(text)'")
            }
            return false
        }
    }

    /// The exit status.
    func waitForExit(within seconds: Double = Guest.patience) throws -> Int32 {
        try wait("the monitor's end", within: seconds) { self.process.exitStatusLocked != nil }
        if terminal == nil {
            try wait("the end of its output", within: seconds) {
                self.console.isOverLocked && self.errors.isOverLocked
            }
        }
        return process.exitStatus ?? -1
    }

    /// Waits for the end of the script and the monitor; both must be good.
    func finish(within seconds: Double = Guest.patience) throws {
        let deadline = Date(timeIntervalSinceNow: seconds)
        try wait(for: "swiftlet-guest: exit ", within: seconds)
        let status = try waitForExit(within: deadline.timeIntervalSinceNow)
        guard status == 0, console.text.contains("swiftlet-guest: exit 0\n") else {
            throw failure("the script failed, or the monitor, which ended with \(status)")
        }
    }

    /// Sends keystrokes.
    func type(_ text: String) {
        let bytes = Array(text.utf8)
        _ = write(input, bytes, bytes.count)
    }

    /// What the guest's script said about `key`, once for each time.
    func all(_ key: String) -> [String] {
        let mark = "= \(key) "
        // Without the line that is being printed.
        return console.text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            .compactMap { line in
                line.hasPrefix(mark) ? String(line.dropFirst(mark.count)) : nil
            }
    }

    /// What the guest's script said about `key` last.
    func told(_ key: String) throws -> String {
        guard let value = all(key).last else { throw failure("the guest told no '\(key)'") }
        return value
    }

    func number(_ key: String) throws -> Int {
        guard let number = Int(try told(key)) else {
            throw failure("the guest told no number for '\(key)'")
        }
        return number
    }

    /// The settings of its terminal, in a form that can be compared.
    var terminalSettings: [UInt32] { terminal.map(Self.settings) ?? [] }

    /// Gives its terminal another size and tells the monitor, as the kernel would.
    func resizeTerminal(columns: UInt16, rows: UInt16) throws {
        var size = winsize(ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
        guard let terminal, ioctl(terminal, UInt(TIOCSWINSZ), &size) == 0 else {
            throw failure("there is no terminal to be resized")
        }
        process.send(SIGWINCH)
    }

    static func settings(of terminal: Int32) -> [UInt32] {
        var settings = termios()
        guard tcgetattr(terminal, &settings) == 0 else { return [] }
        return [settings.c_iflag, settings.c_oflag, settings.c_cflag, settings.c_lflag]
    }

    private func wait(
        _ event: String, within seconds: Double, until condition: () throws -> Bool
    ) throws {
        let deadline = Date(timeIntervalSinceNow: seconds)
        var problem: String?
        changed.lock()
        do {
            while try !condition() {
                if console.countLocked(of: "Kernel panic") > 0 { problem = "the guest panicked" }
                if problem != nil { break }
                if !changed.wait(until: deadline) {
                    problem = "\(Int(seconds)) s passed without \(event)"
                    break
                }
            }
        } catch {
            problem = "\(error)"
        }
        changed.unlock()
        if let problem { throw failure(problem) }
    }

    /// An error with all that the monitor and its guest printed.
    func failure(_ problem: String) -> Failure {
        let printed = String(console.text.suffix(6000))
        let told = terminal == nil ? String(errors.text.suffix(3000)) : ""
        return Failure(
            description: "\(problem)\n--- console\n\(printed)\n--- errors\n\(told)")
    }
}
