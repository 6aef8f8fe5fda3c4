import ArgumentParser
import VMMBase
import VMMHost
import VMMMachine
import VMMNetwork
import VMMSandbox

extension SandboxOptions.Filter: ExpressibleByArgument {}

/// `swiftlet switch`: connects guests whose interfaces are `--net backend=socket,path=...`.
struct SwitchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "switch",
        abstract: "Connects guests by a network switch on Unix sockets.",
        discussion: """
            Each connection to a socket is a port; a frame stands behind its length of four bytes, \
            as with QEMU's '-netdev stream'. Needs no rights. SIGUSR1 prints statistics, SIGINT \
            and SIGTERM end it.
            """)

    @Option(name: .shortAndLong, help: "The path of a socket to make; several are one switch.")
    var socket: [String]

    @Flag(
        name: .customLong("vnet-hdr"),
        help: "Frames carry virtio-net's header: all guests have vnet_hdr=on.")
    var hasHeaders = false

    @Flag(help: "Print the statistics at the end, too.")
    var stats = false

    @Flag(help: "Print statistics as JSON.")
    var json = false

    @Flag(name: .shortAndLong, help: "Tell on standard error when ports come and go.")
    var verbose = false

    @Option(help: "What becomes of system calls that a switch has no business with.")
    var seccomp = SandboxOptions.Filter.on

    func run() throws {
        let signals = try ProcessSignals([
            ProcessSignals.interrupt, ProcessSignals.terminate, ProcessSignals.hangUp,
            ProcessSignals.report,
        ])
        ProcessSignals.ignoreBrokenPipes()
        LogSink(descriptor: .standardError, program: "swiftlet switch", clock: SystemClock())
            .start(verbose ? .info : .warning)
        let loop = try EventLoop()
        let frames = try FrameSwitch(
            hasHeaders ? .offloads : .plain, loop: loop, clock: SystemClock())
        defer { frames.finish() }
        for path in socket {
            // All guests of a large set may come at once.
            try frames.add(UnixListener(path: path, backlog: 128))
        }
        try confine()
        try loop.add(signals.descriptor, [.readable]) {
            while let signal = signals.next() {
                if signal == ProcessSignals.report { report(frames) } else { loop.stop() }
            }
        }
        try loop.run()
        if stats { report(frames) }
    }

    /// Frames of all guests come in from here on: who got into the switch by one would find no
    /// file but its sockets, and may neither make nor connect any.
    private func confine() throws {
        Privileges.hideMemory()
        var files: LandlockRules?
        if LandlockRules.version > 0 {
            let rules = try LandlockRules(version: LandlockRules.version)
            for folder in socket.map({ SandboxFile.socket($0) }) {
                try rules.allow(folder.path, folder.access)
            }
            files = rules
        }
        if seccomp == .on { SystemCallFilter.reportViolations() }
        let program = seccomp.verdict.map { verdict in
            { @Sendable (_: ThreadRole) in
                FilterProgram(ThreadRules.frameSwitch, otherwise: verdict).code
            }
        }
        try Confinement(program: program, nothing: nil, keeping: [])
            .confineControl(files: files)
    }

    private func report(_ frames: FrameSwitch) {
        let ports = frames.counters.map { Report(port: $0.port, $0.counters) }
        let text = json ? try? JSONText.make(ports) : Report.table(ports)
        FileDescriptor.standardOutput.writeAll((text ?? "[]") + "\n")
    }
}

/// The statistics of one port, as they are printed. "Received" is what came from its guest.
private struct Report: Encodable {
    let port: Int
    let receivedFrames: UInt64
    let receivedBytes: UInt64
    let sentFrames: UInt64
    let sentBytes: UInt64
    let droppedFrames: UInt64

    enum CodingKeys: String, CodingKey {
        case port
        case receivedFrames = "received-frames"
        case receivedBytes = "received-bytes"
        case sentFrames = "sent-frames"
        case sentBytes = "sent-bytes"
        case droppedFrames = "dropped-frames"
    }

    init(port: Int, _ counters: PortCounters) {
        self.port = port
        receivedFrames = counters.receivedFrames
        receivedBytes = counters.receivedBytes
        sentFrames = counters.sentFrames
        sentBytes = counters.sentBytes
        droppedFrames = counters.droppedFrames
    }

    static func table(_ ports: [Report]) -> String {
        let head = ["port", "received", "bytes", "sent", "bytes", "dropped"]
        let rows = ports.map { report -> [String] in
            let numbers = [
                UInt64(report.port), report.receivedFrames, report.receivedBytes,
                report.sentFrames, report.sentBytes, report.droppedFrames,
            ]
            return numbers.map { String($0) }
        }
        return ([head] + rows).map { row in
            row.map { String(repeating: " ", count: max(0, 14 - $0.utf8.count)) + $0 }.joined()
        }.joined(separator: "\n")
    }
}
