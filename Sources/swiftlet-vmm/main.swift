import VMMBase
import VMMDevices
import VMMHost
import VMMMachine

/// The exit statuses of Cloud Hypervisor: 0 for a guest that ended, 1 for everything else.
enum ExitStatus {
    static let success: Int32 = 0
    static let failure: Int32 = 1
}

let version = "0.1.0"
let words = CommandLine.arguments
let program =
    words.first.map { $0.split(separator: "/").last.map(String.init) ?? $0 } ?? "swiftlet-vmm"

/// Runs what the words ask for and returns the exit status.
func runMonitor(_ words: [String]) -> Int32 {
    // Before any thread starts, so that all inherit the blocked signals.
    let signals: ProcessSignals
    do throws(HostError) {
        signals = try ProcessSignals([
            ProcessSignals.interrupt, ProcessSignals.terminate, ProcessSignals.hangUp,
            ProcessSignals.windowChange,
        ])
    } catch {
        return fail("\(error)")
    }
    ProcessSignals.ignoreBrokenPipes()
    ProcessSignals.prepareKick()
    defer { TerminalSettings.restoreAll() }
    do {
        let arguments = try CommandLineArguments(words)
        if arguments.wantsHelp {
            FileDescriptor.standardOutput.writeAll(HelpText.render(program: program))
            return ExitStatus.success
        }
        if arguments.wantsVersion {
            FileDescriptor.standardOutput.writeAll("\(program) \(version)\n")
            return ExitStatus.success
        }
        try startLog(arguments)
        let system = try KVMSystem()
        let outline = try arguments.configuration.validate(.init(system))
        let monitor = try Monitor(
            outline, system: system, signals: signals, clock: SystemClock())
        switch monitor.run() {
        case .poweredOff, .interrupted: return ExitStatus.success
        case .failed(let reason): return fail(reason)
        }
    } catch {
        return fail("\(error)")
    }
}

func startLog(_ arguments: CommandLineArguments) throws {
    var sink = FileDescriptor.standardError
    if let path = arguments.logFile {
        do throws(HostError) {
            sink = try FileDescriptor.open(path, [.writeOnly, .create, .append])
        } catch {
            throw ConfigurationProblem(
                option: "--log-file", value: path, reason: "cannot be written: \(error.reason)")
        }
    }
    LogSink(descriptor: sink, program: program, clock: SystemClock()).start(arguments.logLevel)
}

/// Tells each problem in a line of its own; the terminal is put back first.
func fail(_ message: String) -> Int32 {
    TerminalSettings.restoreAll()
    for line in message.split(separator: "\n") {
        FileDescriptor.standardError.writeAll("\(program): \(line)\n")
    }
    return ExitStatus.failure
}

terminateProcess(runMonitor(Array(words.dropFirst())))
