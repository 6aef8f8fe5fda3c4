import VMMBase
import VMMDevices
import VMMHost
import VMMMachine

/// The exit statuses of Cloud Hypervisor: 0 for a guest that ended, 1 for everything else.
enum ExitStatus {
    static let success: Int32 = 0
    static let failure: Int32 = 1
}

/// The monitor's program: argv words in, an exit status out.
@main
struct SwiftletVMM {
    private static let version = "0.1.0"

    /// The name that the program was started under.
    private let program: String

    static func main() {
        let words = CommandLine.arguments
        let name = words.first?.split(separator: "/").last.map(String.init) ?? "swiftlet-vmm"
        terminateProcess(SwiftletVMM(program: name).run(Array(words.dropFirst())))
    }

    /// Runs what the words ask for and returns the exit status.
    private func run(_ words: [String]) -> Int32 {
        defer { TerminalSettings.restoreAll() }
        do {
            ProcessMemory.useOneHeap()
            // Before any thread starts, so that all inherit the blocked signals.
            let signals = try ProcessSignals([
                ProcessSignals.interrupt, ProcessSignals.terminate, ProcessSignals.hangUp,
                ProcessSignals.windowChange,
            ])
            ProcessSignals.ignoreBrokenPipes()
            ProcessSignals.prepareKick()
            let arguments = try CommandLineArguments(words)
            if arguments.wantsHelp {
                FileDescriptor.standardOutput.writeAll(HelpText.render(program: program))
                return ExitStatus.success
            }
            if arguments.wantsVersion {
                FileDescriptor.standardOutput.writeAll("\(program) \(Self.version)\n")
                return ExitStatus.success
            }
            try startLog(arguments)
            return try runMachine(arguments.configuration, signals)
        } catch {
            return fail("\(error)")
        }
    }

    private func runMachine(
        _ configuration: MachineConfiguration, _ signals: ProcessSignals
    ) throws -> Int32 {
        let system = try KVMSystem()
        let outline = try configuration.validate(.init(system))
        let monitor = try Monitor(
            outline, system: system, signals: signals, clock: SystemClock())
        switch monitor.run() {
        case .poweredOff, .interrupted: return ExitStatus.success
        case .failed(let reason): return fail(reason)
        }
    }

    private func startLog(_ arguments: CommandLineArguments) throws {
        var sink = FileDescriptor.standardError
        if let path = arguments.logFile {
            do throws(HostError) {
                sink = try FileDescriptor.open(path, [.writeOnly, .create, .append])
            } catch {
                throw ConfigurationProblem(
                    option: "--log-file", value: path, reason: "cannot be written: \(error.reason)")
            }
        }
        LogSink(descriptor: sink, program: program, clock: SystemClock())
            .start(arguments.logLevel)
    }

    /// Tells each problem in a line of its own; the terminal is put back first.
    private func fail(_ message: String) -> Int32 {
        TerminalSettings.restoreAll()
        for line in message.split(separator: "\n") {
            FileDescriptor.standardError.writeAll("\(program): \(line)\n")
        }
        return ExitStatus.failure
    }
}
