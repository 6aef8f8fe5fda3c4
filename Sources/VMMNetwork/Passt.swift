import VMMBase
import VMMHost

/// The program `passt`, which turns frames into ordinary sockets of the user who started it, and
/// so needs no rights. It is our child, confines itself, and ends with the socket that it has from
/// us; what it says goes to our log.
package final class Passt {
    /// A port of the host that is the guest's.
    package struct Forward: Equatable, Sendable {
        package enum Transport: String, Sendable {
            case tcp, udp
        }

        package let transport: Transport
        /// The host's address to listen on; nil for all.
        package let address: String?
        package let hostPort: UInt16
        package let guestPort: UInt16

        /// `tcp:HOSTPORT:GUESTPORT`, also with the host's IPv4 address before the ports, or `udp:`.
        package init?(_ text: String) {
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 3 || parts.count == 4,
                let transport = Transport(rawValue: String(parts[0])),
                let hostPort = UInt16(parts[parts.count - 2]),
                let guestPort = UInt16(parts[parts.count - 1]), hostPort > 0, guestPort > 0
            else { return nil }
            let address = parts.count == 4 ? String(parts[1]) : nil
            if let address, IPAddress(address)?.family != .v4 { return nil }
            self.transport = transport
            self.address = address
            self.hostPort = hostPort
            self.guestPort = guestPort
        }

        /// As passt's `--tcp-ports` and `--udp-ports` have it.
        var argument: String {
            "\(address.map { $0 + "/" } ?? "")\(hostPort):\(guestPort)"
        }
    }

    /// The longest line of passt's that we keep.
    private static let lineLimit = 1024

    private let name: String
    private let loop: EventLoop
    private let path: String
    private let words: [String]
    /// Its end of the wire, until it has it.
    private var socket: FileDescriptor?
    private var child: ChildProcess?
    private var output: FileDescriptor?
    private var line: [UInt8] = []
    private var lastLine = ""
    private var limiter: LogLimiter?

    /// The program at `path` with `socket` as its end of the wire. `loop` serves its output.
    package init(
        name: String, path: String, socket: FileDescriptor, forwards: [Forward], mtu: UInt16,
        loop: EventLoop
    ) {
        self.name = name
        self.loop = loop
        self.path = path
        self.socket = socket
        words = Self.arguments(socket, forwards, mtu)
    }

    /// Starts the program. Called on the thread that ends last, for the program ends with it.
    /// `limiter` is for what the program says.
    func start(_ limiter: LogLimiter) throws(HostError) {
        self.limiter = limiter
        guard let socket else { return }
        self.socket = nil
        let pipe = try ChildProcess.makeOutput()
        let child = try ChildProcess(path, words, keeping: [socket], output: pipe.far)
        self.child = child
        output = pipe.near
        try loop.add(pipe.near, [.readable]) { [weak self] in self?.readOutput() }
        try loop.add(child.descriptor, [.readable]) { [weak self] in self?.takeEnd() }
    }

    deinit { finish() }

    /// Without a word about ports none is forwarded.
    static func arguments(
        _ socket: FileDescriptor, _ forwards: [Forward], _ mtu: UInt16
    ) -> [String] {
        var words = ["--foreground", "--fd", "\(socket.rawValue)", "--mtu", "\(mtu)"]
        for (transport, option) in [(Forward.Transport.tcp, "--tcp-ports"), (.udp, "--udp-ports")] {
            // Each in an option of its own: a list shares its first address.
            for forward in forwards where forward.transport == transport {
                words += [option, forward.argument]
            }
        }
        return words
    }

    /// Lets go of the loop.
    func detach() {
        guard let output, let child else { return }
        self.output = nil
        loop.remove(output)
        loop.remove(child.descriptor)
    }

    /// Ends the process and lets go of the loop.
    package func finish() {
        detach()
        child?.kill()
    }

    private func readOutput() {
        guard let output else { return }
        var bytes: [UInt8] = []
        switch output.read(into: &bytes, limit: 4096) {
        case .moved: bytes.forEach(takeByte)
        case .wouldBlock: break
        case .endOfFile, .failed: loop.remove(output)
        }
    }

    private func takeByte(_ byte: UInt8) {
        guard byte == UInt8(ascii: "\n") || line.count >= Self.lineLimit else {
            // No control characters in our log.
            return line.append(byte < 0x20 ? UInt8(ascii: " ") : byte)
        }
        if !line.isEmpty {
            lastLine = String(decoding: line, as: UTF8.self)
            limiter?.info("\(name): passt: \(lastLine)")
        }
        line.removeAll(keepingCapacity: true)
    }

    private func takeEnd() {
        guard let child, let end = child.poll() else { return }
        readOutput()
        loop.remove(child.descriptor)
        Log.warning("\(name): passt is gone, \(end); it said last: \(lastLine)")
    }
}
