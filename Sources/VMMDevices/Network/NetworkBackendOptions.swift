import VMMBase
import VMMHost
import VMMNetwork
import VMMSandbox

/// The keys of `--net` that say where frames go when that is not a tap of the host. None of these
/// backends needs a right.
package struct NetworkBackendOptions: Decodable, Sendable {
    package static var fields: [OptionField] {
        [
            OptionField(
                "backend", "tap|socket|user", "where frames go; socket and user need no rights",
                default: "tap"),
            OptionField("path", "<file>", "the socket; of the peer, for datagrams"),
            OptionField("local_path", "<file>", "our own socket, for datagrams"),
            OptionField("mode", "client|server", "who listens at the path", default: "client"),
            OptionField(
                "framing", "stream|dgram", "frames behind their length, or a datagram each",
                default: "stream"),
            OptionField(
                "vnet_hdr", "on|off", "virtio-net's header before frames on a socket: offloads",
                default: "off"),
            OptionField(
                "forward", "[tcp:<p>:<p>,..]", "host ports that are the guest's; udp too"),
        ]
    }

    package enum Kind: String, OptionChoice, Decodable, Sendable {
        case tap, socket, user
    }

    package enum Mode: String, OptionChoice, Decodable, Sendable {
        case client, server
    }

    package enum Framing: String, OptionChoice, Decodable, Sendable {
        case stream, dgram
    }

    private let backend: Kind?
    private let path: String?
    private let localPath: String?
    private let mode: Mode?
    private let framing: Framing?
    private let hasHeaders: Bool?
    private let forward: [String]?

    private enum CodingKeys: String, CodingKey {
        case backend, path, mode, framing, forward
        case localPath = "local_path"
        case hasHeaders = "vnet_hdr"
    }

    /// What a tap takes of the host: its own requests. A confined process gives it its address by
    /// sockets that it made before.
    static var tap: SandboxNeeds {
        SandboxNeeds(
            serving: SandboxNeeds.timerCalls
                + SystemCallRules(ioctl: DeviceRequests.tap),
            opening: SystemCallRules(ioctl: DeviceRequests.tapOpening))
    }

    /// What a peer at the end of a socket takes, or passt, which is signalled by its descriptor: no
    /// other process can be.
    static var peer: SandboxNeeds {
        .sockets
            + SandboxNeeds(
                serving: SystemCallRules(
                    .pidfd_send_signal, .wait4, .unlink, .lstat, .newfstatat))
    }

    /// What the backend takes.
    var sandbox: SandboxNeeds { kind == .tap ? Self.tap : Self.peer }

    /// The files that the backend reaches by their paths.
    var files: [SandboxFile] {
        switch kind {
        case .tap: [SandboxFile("/dev/net/tun", [.read, .write, .control])]
        case .socket where framing == .dgram: localPath.map { [.socket($0)] } ?? []
        case .socket where mode == .server: path.map { [.socket($0)] } ?? []
        case .socket, .user: []
        }
    }

    /// The socket of another that frames go to.
    var peers: [String] {
        guard kind == .socket, framing == .dgram || mode != .server else { return [] }
        return path.map { [$0] } ?? []
    }

    /// The kind of backend that the user chose.
    package var kind: Kind { backend ?? .tap }

    /// What stands on a socket for a frame.
    private var format: FrameFormat { hasHeaders == true ? .offloads : .plain }

    // MARK: mistakes

    /// Mistakes that show without touching the host. `tapKeys` are the keys given that say
    /// something of a tap, `offloadKeys` those that ask for offloads.
    package func problems(tapKeys: [String], offloadKeys: [String]) -> [ConfigurationProblem] {
        var problems = misplaced(tapKeys, offloadKeys)
        switch kind {
        case .tap: break
        case .socket:
            problems += pathProblems("path", path)
            if framing == .dgram { problems += pathProblems("local_path", localPath) }
        case .user:
            problems += forwardProblems()
        }
        return problems
    }

    /// Keys that belong to another backend than the chosen one.
    private func misplaced(
        _ tapKeys: [String], _ offloadKeys: [String]
    ) -> [ConfigurationProblem] {
        let isSocket = kind == .socket
        let isDatagram = isSocket && framing == .dgram
        var keys = kind == .tap ? [] : tapKeys.map { ($0, "backend=tap") }
        if isSocket, hasHeaders != true {
            keys += offloadKeys.map { ($0, "vnet_hdr=on") }
        } else if kind == .user {
            keys += offloadKeys.map { ($0, "backend=tap") }
        }
        if hasHeaders == true, !isSocket { keys.append(("vnet_hdr", "backend=socket")) }
        if path != nil, !isSocket { keys.append(("path", "backend=socket")) }
        if framing != nil, !isSocket { keys.append(("framing", "backend=socket")) }
        if localPath != nil, !isDatagram { keys.append(("local_path", "framing=dgram")) }
        if mode != nil, !isSocket || isDatagram { keys.append(("mode", "framing=stream")) }
        if forward != nil, kind != .user { keys.append(("forward", "backend=user")) }
        return keys.map { key, owner in Self.problem(key, "", "goes with \(owner) only") }
    }

    private func pathProblems(_ key: String, _ path: String?) -> [ConfigurationProblem] {
        guard let path else {
            return [Self.problem(key, "", "a socket needs one: \(key)=<file>")]
        }
        return UnixSocket.problem(path: path).map { [Self.problem(key, "", $0)] } ?? []
    }

    private func forwardProblems() -> [ConfigurationProblem] {
        var taken: Set<String> = []
        return (forward ?? []).compactMap { text in
            guard let port = Passt.Forward(text) else {
                return Self.problem(
                    "forward", text,
                    "expected tcp:HOSTPORT:GUESTPORT or udp:..., with ports from"
                        + " 1 to 65535 (and the host's IPv4 address before them if you like)")
            }
            guard taken.insert("\(port.transport) \(port.hostPort)").inserted else {
                return Self.problem("forward", text, "the host's port is given twice")
            }
            return nil
        }
    }

    private static func problem(
        _ key: String, _ value: String, _ reason: String
    ) -> ConfigurationProblem {
        ConfigurationProblem(option: "\(NetworkSpec.option) \(key)", value: value, reason: reason)
    }

    // MARK: backends

    /// The backend, connected where that is possible; nil for a tap. `mtu` is what passt tells the
    /// guest by DHCP. Errors are for the user.
    package func makeBackend(
        mtu: UInt16, _ context: DeviceContext
    ) throws(ConfigurationProblem) -> (any FrameBackend)? {
        switch kind {
        case .tap: nil
        case .socket where framing == .dgram: try makeDatagram(context)
        case .socket: try makeStream(context)
        case .user: try makeUser(mtu: mtu, context)
        }
    }

    private func makeStream(
        _ context: DeviceContext
    ) throws(ConfigurationProblem) -> any FrameBackend {
        let path = path ?? ""
        do {
            if mode == .server {
                return try SocketBackend(
                    name: context.id, origin: .listener(UnixListener(path: path)), format: format,
                    loop: context.loop, clock: context.clock)
            }
            return try SocketBackend(
                name: context.id, origin: .server(path: path),
                connection: UnixSocket.connectStream(to: path), format: format,
                loop: context.loop, clock: context.clock)
        } catch {
            throw Self.problem("path", "", "\(error)")
        }
    }

    private func makeDatagram(
        _ context: DeviceContext
    ) throws(ConfigurationProblem) -> any FrameBackend {
        do throws(UnixListener.Failure) {
            return try DatagramBackend(
                path: path ?? "", localPath: localPath ?? "", format: format,
                loop: context.loop, clock: context.clock)
        } catch {
            throw Self.problem("local_path", "", error.description)
        }
    }

    private func makeUser(
        mtu: UInt16, _ context: DeviceContext
    ) throws(ConfigurationProblem) -> any FrameBackend {
        guard let program = ChildProcess.find("passt") else {
            throw Self.problem(
                "backend", "user", "needs the program passt: install the package 'passt'")
        }
        do throws(HostError) {
            let (near, far) = try UnixSocket.streamPair()
            let passt = Passt(
                name: context.id, path: program, socket: far,
                forwards: (forward ?? []).compactMap { Passt.Forward($0) }, mtu: mtu,
                loop: context.loop)
            return try SocketBackend(
                name: context.id, origin: .companion(passt), connection: near,
                loop: context.loop, clock: context.clock)
        } catch {
            throw Self.problem("backend", "user", error.description)
        }
    }
}
