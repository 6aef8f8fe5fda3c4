import VMMBase
import VMMHost
import VMMSandbox

/// What a console or serial line is connected to on the host, as `--serial` and `--console` say
/// it.
package enum ConsoleEndpoint: Equatable, Sendable {
    case off
    case null
    case tty
    case file(path: String)
    case pty
    case socket(path: String)

    /// What any endpoint takes of the host.
    static var sandbox: SandboxNeeds { .streams + .sockets + terminals }

    private static var terminals: SandboxNeeds {
        SandboxNeeds(opening: SystemCallRules(ioctl: DeviceRequests.terminalMaking))
    }

    /// What this one takes.
    var sandbox: SandboxNeeds {
        switch self {
        case .off, .null: SandboxNeeds()
        case .tty, .file: .streams
        case .pty: .streams + Self.terminals
        case .socket: .streams + .sockets
        }
    }

    /// The files that it reaches by their paths.
    var files: [SandboxFile] {
        switch self {
        case .off, .null, .tty: []
        case .file(let path): [SandboxFile(path, .write)]
        case .pty:
            ["/dev/ptmx", "/dev/pts"].map { SandboxFile($0, [.read, .write, .control]) }
        case .socket(let path): [.socket(path)]
        }
    }

    /// Makes the endpoint's channel, not started yet. Of several `tty` endpoints one at most may
    /// take input, or they would tear the user's typing apart.
    package func makeChannel(takesInput: Bool = true) throws(EndpointError) -> any ByteChannel {
        switch self {
        case .off, .null: NullChannel()
        case .tty: try TerminalChannel(takesInput: takesInput)
        case .file(let path): try FileChannel(path: path)
        case .pty: try PseudoTerminalChannel()
        case .socket(let path): try SocketChannel(path: path)
        }
    }
}

/// A channel that is a `StreamChannel` with an endpoint around it.
protocol StreamBacked: ByteChannel {
    var stream: StreamChannel { get }
}

extension StreamBacked {
    package func send(_ byte: UInt8) { stream.send(byte) }
    package func send(_ bytes: [UInt8]) { stream.send(bytes) }
    package func setInputPaused(_ paused: Bool) { stream.setInputPaused(paused) }
}

/// Output into a file, which is made now and emptied when the guest starts. There is no input.
package final class FileChannel: StreamBacked {
    let stream: StreamChannel
    private let file: ByteStream

    /// Opens or makes the file at `path`.
    package init(path: String) throws(EndpointError) {
        stream = StreamChannel("console file '\(path)'", failure: .discardsOutput)
        do throws(HostError) {
            // Non-blocking matters where the path is a FIFO, whose opening would wait for a reader.
            file = try ByteStream(
                nonBlocking: .open(
                    path, [.writeOnly, .create, .nonBlocking, .noControllingTerminal],
                    mode: 0o666))
        } catch {
            throw EndpointError("console file", error)
        }
    }

    /// Terminals and pipes have no length, and refuse.
    package func guestStarts() { try? file.descriptor.resize(to: 0) }

    package func start(on loop: EventLoop, receive: (@Sendable ([UInt8]) -> Void)?) {
        stream.start(on: loop, receive: nil)
        stream.connect(StreamChannel.Connection(input: nil, output: file))
    }

    package func finish() { stream.finish(patience: 0) }
}

/// A pseudo-terminal that the user connects a terminal program to. What the guest wrote before is
/// kept for the reader: some kilobytes in the kernel, the rest here.
package final class PseudoTerminalChannel: StreamBacked {
    let stream = StreamChannel("pty", failure: .discardsOutput)
    private let terminal: PseudoTerminal
    private let master: ByteStream

    /// Where to connect: "/dev/pts/3".
    package var path: String { terminal.path }

    /// Opens a new pair; its `path` can be used at once.
    package init() throws(EndpointError) {
        do throws(HostError) {
            terminal = try PseudoTerminal()
            master = try ByteStream(nonBlocking: terminal.master)
        } catch {
            throw EndpointError("pty", error)
        }
    }

    package func start(on loop: EventLoop, receive: (@Sendable ([UInt8]) -> Void)?) {
        Log.info("console at \(path)")
        stream.start(on: loop, receive: receive)
        stream.connect(
            StreamChannel.Connection(input: receive == nil ? nil : master, output: master))
    }

    package func finish() { stream.finish(patience: 0) }

    package var size: TerminalSize? {
        terminal.master.windowSize.flatMap(TerminalSize.init(known:))
    }
}

extension TerminalSize {
    /// Nil for the 0 x 0 that a terminal reports whose size nobody set.
    init?(known size: (columns: UInt16, rows: UInt16)) {
        guard size.columns > 0, size.rows > 0 else { return nil }
        self.init(columns: size.columns, rows: size.rows)
    }
}
