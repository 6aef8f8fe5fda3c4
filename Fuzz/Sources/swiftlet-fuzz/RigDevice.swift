import VMMDevices
import VMMHost
import VMMStorage
import VMMTestSupport
import VMMVirtIO

/// The devices that inputs drive through a transport; networks have a target of their own, and
/// what passes through vsock has one, too.
enum RigDevice: UInt8, CaseIterable {
    case entropy, console, watchdog, block, vsock

    /// Several fuzzers may run at once.
    private static let identity = UInt64.random(in: 0 ... .max)

    /// The rings' format and the device, as the input's first byte says.
    static func make(
        from input: inout FuzzInput, on kind: TransportRig.Kind
    ) throws -> TransportRig {
        let flags = input.next(UInt8.self)
        let features = Feature.ring | (flags & 1 == 0 ? 0 : Feature.packedRing)
        let device = try allCases[Int(flags >> 1) % allCases.count].make()
        return try TransportRig(device, kind, features: features)
    }

    private func make() throws -> any VirtIODevice {
        switch self {
        case .entropy: return try VirtIOEntropy(id: "fuzz")
        case .console:
            let channel = RecordingChannel(size: TerminalSize(columns: 80, rows: 25))
            let console = try VirtIOConsole(id: "fuzz", channel: channel)
            try console.startChannel(on: EventLoop())
            channel.deliver([1, 2, 3])
            return console
        case .watchdog:
            return try VirtIOWatchdog(id: "fuzz", clock: SystemClock()) {}
        case .block:
            let file = FuzzFile()
            try file.resize(to: 64 << 10)
            let disk = try Disk(RawImage(file), DiskOptions())
            return VirtIOBlock(
                id: "fuzz", disk: disk, queueSizes: [128, 16], serial: nil, clock: SystemClock())
        case .vsock:
            let listener = try UnixListener(
                path: "/tmp/swiftlet-fuzz-\(Self.identity)", backlog: 4, isPrivate: true)
            return try VirtIOVsock(
                id: "fuzz", guest: 3, listener: listener, clock: SystemClock(), limit: 4)
        }
    }
}
