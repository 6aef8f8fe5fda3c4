import VMMBase
import VMMDevices
import VMMHost
import VMMMachine
import VMMServer

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
        let words = ProcessArguments.all ?? CommandLine.arguments
        let name = words.first?.split(separator: "/").last.map(String.init) ?? "swiftlet-vmm"
        terminateProcess(SwiftletVMM(program: name).run(Array(words.dropFirst())))
    }

    /// Runs what the words ask for and returns the exit status.
    private func run(_ words: [String]) -> Int32 {
        defer { TerminalSettings.restoreAll() }
        do {
            StandardStreams.fill()
            ProcessMemory.useOneHeap()
            Privileges.keepFilesPrivate()
            ProcessLimits.raiseDescriptorLimit()
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
            if arguments.wantsDescription {
                let document = OpenAPI.document(version: Self.version).text(isIndented: true)
                FileDescriptor.standardOutput.writeAll(String(decoding: document, as: UTF8.self))
                FileDescriptor.standardOutput.writeAll("\n")
                return ExitStatus.success
            }
            try startLog(arguments)
            let events = try openEvents(arguments)
            events?.tell(.vmm, .starting)
            var server: HTTPServer?
            defer {
                // In this order, so that who follows the events by the API hears of the end.
                events?.tell(.vmm, .shutdown)
                server?.end()
                events?.finish()
            }
            return try runMachine(arguments, signals, events, &server)
        } catch {
            return fail("\(error)")
        }
    }

    /// Where events go, if anybody can hear of them.
    private func openEvents(_ arguments: CommandLineArguments) throws -> EventMonitor? {
        let clock = SystemClock()
        if let spec = arguments.eventMonitor { return try spec.open(clock) }
        return arguments.apiSocket == nil ? nil : EventMonitor(nil, clock: clock)
    }

    private func runMachine(
        _ arguments: CommandLineArguments, _ signals: ProcessSignals, _ events: EventMonitor?,
        _ server: inout HTTPServer?
    ) throws -> Int32 {
        let sandbox = try MachineSandbox(
            arguments.sandbox, takesRequests: arguments.apiSocket != nil)
        let monitor = try Monitor(
            system: KVMSystem(), signals: signals, clock: SystemClock(), events: events,
            sandbox: sandbox, outlivesGuest: arguments.outlivesGuest)
        if let socket = try arguments.apiSocket?.open() {
            let api = CloudHypervisorAPI(monitor.control, events, version: Self.version)
            server = try HTTPServer(socket.listener, lock: socket.lock) { api.handle($0) }
            events?.tell(.vmm, .ready)
        }
        switch monitor.run(arguments.firstMachine) {
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

/// Replaces the Swift runtime's own, which looks by /proc for the program that prints the traces of
/// crashes, whenever a process starts, and ends the process where there is no /proc: in a jail. The
/// program is not there, and a confined monitor could not start it. Takes and returns addresses.
@_cdecl("swift_copyAuxiliaryExecutablePath")
func findNoTracer(_ name: UInt) -> UInt { 0 }
