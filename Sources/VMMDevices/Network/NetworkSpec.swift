import VMMBase
import VMMHost
import VMMNetwork
import VMMSandbox
import VMMVirtIO

/// `--net`: a virtio-net device, on a tap interface of the host or on a socket.
package struct NetworkSpec: DeviceSpec, Decodable {
    package static let word = "net"
    package static let summary = "A network interface, on a tap of the host or on a socket"
    package static let isRepeatable = true
    package static let isHotpluggable = true
    package static var fields: [OptionField] {
        NetworkBackendOptions.fields + [
            OptionField("tap", "<name>", "the tap interface", default: "a new one"),
            OptionField("ip", "<address>", "address of the host's end; needs mask"),
            OptionField("mask", "<netmask>", "its netmask; needs ip"),
            OptionField("host_mac", "<address>", "Ethernet address of the host's end"),
            OptionField("mac", "<address>", "the guest's address", default: "random"),
            OptionField("mtu", "<bytes>", "the largest packet, on both ends").within(mtus),
            OptionField(
                "fd", "[<fd>,..]", "descriptors of an opened tap or macvtap, one for each pair",
                json: ("fds", nil)),
            OptionField(
                "offload_csum", "on|off", "checksums may be left to the other side",
                default: "on"),
            OptionField("offload_tso", "on|off", "TCP segmentation too", default: "on"),
            OptionField("offload_ufo", "on|off", "UDP fragmentation too", default: "on"),
            OptionField(
                "offload_uso", "on|off", "UDP segmentation too", default: "on, from Linux 6.2"),
            OptionField(
                "num_queues", "<n>", "queues, two for each pair; several pairs have threads",
                default: "2"
            ).within(queueCounts),
            OptionField("queue_size", "<n>", "buffers in a queue, a power of two", default: "256")
                .within(queueSizes),
        ] + RateLimitOptions.fields + [
            OptionField("id", "<name>", "the device's name", default: "_net<n>")
        ] + PlaceOptions.fields
    }

    /// What Linux gives a tap at most is 256 queues.
    private static let queueCounts: ClosedRange<UInt16> = 2...512
    /// Linux sends frames in up to 19 pieces; 1024 is what one readv takes (IOV_MAX).
    private static let queueSizes: ClosedRange<UInt16> = 32...1024
    /// IPv6 needs 1280 at least; the most is a tap's.
    private static let mtus: ClosedRange<UInt16> = 1280...65521

    /// Ethernet's. The guest's buffers hold no more unless it is told of a larger one.
    private static let usualMTU: UInt16 = 1500

    package let tap: String?
    package let address: String?
    package let mask: String?
    package let hostMAC: String?
    package let mac: String?
    package let mtu: UInt16?
    package let descriptors: [Int32]?
    package let offloadsChecksum: Bool?
    package let offloadsTCP: Bool?
    package let offloadsUDP: Bool?
    package let offloadsUDPSegments: Bool?
    package let queueCount: UInt16?
    package let queueSize: UInt16?
    package let limits: RateLimitOptions
    package let id: String?
    package let place: PlaceOptions
    package var descriptorNumbers: [Int32] { descriptors ?? [] }
    package let backend: NetworkBackendOptions

    private enum CodingKeys: String, CodingKey {
        case tap
        case address = "ip"
        case mask
        case hostMAC = "host_mac"
        case mac
        case mtu
        case descriptors = "fd"
        case offloadsChecksum = "offload_csum"
        case offloadsTCP = "offload_tso"
        case offloadsUDP = "offload_ufo"
        case offloadsUDPSegments = "offload_uso"
        case queueCount = "num_queues"
        case queueSize = "queue_size"
        case id
    }

    package init(from decoder: any Decoder) throws {
        let keys = try decoder.container(keyedBy: CodingKeys.self)
        tap = try keys.decodeIfPresent(String.self, forKey: .tap)
        address = try keys.decodeIfPresent(String.self, forKey: .address)
        mask = try keys.decodeIfPresent(String.self, forKey: .mask)
        hostMAC = try keys.decodeIfPresent(String.self, forKey: .hostMAC)
        mac = try keys.decodeIfPresent(String.self, forKey: .mac)
        mtu = try keys.decodeIfPresent(UInt16.self, forKey: .mtu)
        descriptors = try keys.decodeIfPresent([Int32].self, forKey: .descriptors)
        offloadsChecksum = try keys.decodeIfPresent(Bool.self, forKey: .offloadsChecksum)
        offloadsTCP = try keys.decodeIfPresent(Bool.self, forKey: .offloadsTCP)
        offloadsUDP = try keys.decodeIfPresent(Bool.self, forKey: .offloadsUDP)
        offloadsUDPSegments = try keys.decodeIfPresent(Bool.self, forKey: .offloadsUDPSegments)
        queueCount = try keys.decodeIfPresent(UInt16.self, forKey: .queueCount)
        queueSize = try keys.decodeIfPresent(UInt16.self, forKey: .queueSize)
        limits = try RateLimitOptions(from: decoder)
        id = try keys.decodeIfPresent(String.self, forKey: .id)
        place = try PlaceOptions(from: decoder)
        backend = try NetworkBackendOptions(from: decoder)
    }

    package static var sandbox: SandboxNeeds {
        NetworkBackendOptions.tap + NetworkBackendOptions.peer
    }
    package var sandbox: SandboxNeeds { backend.sandbox }
    package var files: [SandboxFile] { backend.files }
    package var peers: [String] { backend.peers }
    package var usesHostNetwork: Bool { backend.kind == .tap && descriptors == nil }
    package var startsProgram: Bool { backend.kind == .user }

    package func problems() -> [ConfigurationProblem] {
        var problems = limits.problems(option: Self.option) + addressProblems()
        problems += backend.problems(tapKeys: tapKeys, offloadKeys: offloadKeys)
        problems += queueProblems() + descriptorProblems()
        if let tap, tap.isEmpty || tap.utf8.count > TapInterface.maximumNameLength {
            problems.append(problem("tap", tap, "an interface's name has 1 to 15 bytes"))
        }
        problems += macProblems("mac", mac) + macProblems("host_mac", hostMAC)
        if let mtu, !Self.mtus.contains(mtu) {
            problems.append(problem("mtu", "\(mtu)", "expected 1280 to 65521"))
        }
        if offloadsChecksum == false,
            offloadsTCP == true || offloadsUDP == true || offloadsUDPSegments == true
        {
            problems.append(
                problem(
                    "offload_csum", "off", "segmentation offloads need it; switch those off too"))
        }
        return problems
    }

    private func macProblems(_ key: String, _ value: String?) -> [ConfigurationProblem] {
        guard let value else { return [] }
        guard let parsed = MACAddress(value) else {
            return [problem(key, value, "expected six pairs of hex digits, aa:bb:cc:dd:ee:ff")]
        }
        return parsed.isMulticast
            ? [problem(key, value, "is a group address; bit 0 of the first byte is set")] : []
    }

    private func queueProblems() -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        if let queueSize, queueSize.nonzeroBitCount != 1 || !Self.queueSizes.contains(queueSize) {
            problems.append(
                problem("queue_size", "\(queueSize)", "expected a power of two from 32 to 1024"))
        }
        if let queueCount, queueCount % 2 != 0 || !Self.queueCounts.contains(queueCount) {
            problems.append(
                problem("num_queues", "\(queueCount)", "expected an even number from 2 to 512"))
        }
        return problems
    }

    /// With descriptors the host's end is whoever's opened them.
    private func descriptorProblems() -> [ConfigurationProblem] {
        guard let descriptors else { return [] }
        let text = "[" + descriptors.map(String.init).joined(separator: ",") + "]"
        var problems: [ConfigurationProblem] = []
        if descriptors.isEmpty || descriptors.contains(where: { $0 < 3 })
            || Set(descriptors).count < descriptors.count
        {
            problems.append(problem("fd", text, "expected different descriptors from 3 on"))
        }
        if let queueCount, Int(queueCount) != 2 * descriptors.count {
            problems.append(problem("fd", text, "num_queues asks for \(queueCount / 2) of them"))
        }
        if tap != nil || address != nil || mask != nil || hostMAC != nil {
            problems.append(problem("fd", text, "excludes tap, ip, mask and host_mac"))
        }
        return problems
    }

    /// Of the keys given, those that say something of a tap.
    private var tapKeys: [String] {
        [
            ("tap", tap != nil), ("ip", address != nil), ("mask", mask != nil),
            ("host_mac", hostMAC != nil), ("fd", descriptors != nil),
            ("num_queues", queueCount ?? 2 != 2),
        ].compactMap { $1 ? $0 : nil }
    }

    /// Of the keys given, those that ask for offloads.
    private var offloadKeys: [String] {
        [
            ("offload_csum", offloadsChecksum == true), ("offload_tso", offloadsTCP == true),
            ("offload_ufo", offloadsUDP == true), ("offload_uso", offloadsUDPSegments == true),
        ].compactMap { $1 ? $0 : nil }
    }

    private func addressProblems() -> [ConfigurationProblem] {
        guard (address == nil) == (mask == nil) else {
            let missing = address == nil ? "ip" : "mask"
            return [problem(missing, "", "ip and mask are given together or not at all")]
        }
        guard let address, let mask else { return [] }
        var problems: [ConfigurationProblem] = []
        let parsed = IPAddress(address)
        let parsedMask = IPAddress(mask)
        if parsed == nil { problems.append(problem("ip", address, "is no IPv4 or IPv6 address")) }
        if parsedMask?.prefixLength == nil {
            problems.append(problem("mask", mask, "is no netmask"))
        }
        if let parsed, let parsedMask, parsed.family != parsedMask.family {
            problems.append(problem("mask", mask, "is not of the address's family"))
        }
        return problems
    }

    /// Segmentation follows the checksum offload when it is not said otherwise.
    private func offloads(knowsUDPSegments: Bool) -> NetworkOffloads {
        let checksum = offloadsChecksum ?? true
        return NetworkOffloads(
            checksum: checksum, tcp: checksum && offloadsTCP ?? true,
            udp: checksum && offloadsUDP ?? true,
            udpSegments: checksum && offloadsUDPSegments ?? true && knowsUDPSegments)
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        // A peer's frames come as they are, whatever the host's kernel knows.
        var knowsUDPSegments = true
        var backends: [any FrameBackend] = []
        if let single = try backend.makeBackend(mtu: mtu ?? Self.usualMTU, context) {
            backends = [single]
        } else {
            let interface = try openInterface()
            Log.info("\(context.id): tap \(interface.name)")
            knowsUDPSegments = interface.knowsUDPSegments
            backends = TapBackend.all(interface)
        }
        var parameters = VirtIONetwork.Parameters(
            mac: mac.flatMap { MACAddress($0) } ?? .random(),
            offloads: offloads(knowsUDPSegments: knowsUDPSegments), queueSize: queueSize ?? 256)
        parameters.mtu = mtu
        parameters.receiveLimiter = limits.limiter(context.clock)
        parameters.transmitLimiter = limits.limiter(context.clock)
        parameters.changeLimit = ChangeLimit(pairs: backends.count, clock: context.clock)
        return .virtIO(
            VirtIONetwork(
                id: context.id, backends: backends, parameters,
                threads: try makeThreads(backends.count, id: context.id)))
    }

    private func openInterface() throws(ConfigurationProblem) -> TapInterface {
        do throws(HostError) {
            return try makeInterface()
        } catch {
            throw descriptors == nil
                ? problem("tap", tap ?? "", explain(error)) : problem("fd", "", "\(error)")
        }
    }

    private func makeInterface() throws(HostError) -> TapInterface {
        if let descriptors {
            let interface = try TapInterface(using: descriptors)
            if let mtu { try interface.setMTU(mtu) }
            return interface
        }
        let interface = try TapInterface(name: tap, queues: Int(queueCount ?? 2) / 2)
        if let hostMAC = hostMAC.flatMap({ MACAddress($0) }) {
            try interface.setHardwareAddress(hostMAC.bytes)
        }
        if let address = address.flatMap({ IPAddress($0) }),
            let mask = mask.flatMap({ IPAddress($0) })
        {
            try interface.setAddress(address, mask: mask)
        }
        if let mtu { try interface.setMTU(mtu) }
        try interface.bringUp()
        return interface
    }

    /// A thread for each of several pairs.
    private func makeThreads(
        _ count: Int, id: String
    ) throws(ConfigurationProblem) -> [LoopThread] {
        guard count > 1 else { return [] }
        do throws(HostError) {
            return try LoopThread.forQueues(of: id, count: count)
        } catch {
            throw problem("num_queues", "\(2 * count)", error.description)
        }
    }

    private func explain(_ error: HostError) -> String {
        if error.isPermission {
            return "\(error) (needs the capability CAP_NET_ADMIN, or a tap that belongs to you;"
                + " backend=user and backend=socket need neither)"
        }
        return error.isMismatch
            ? "\(error) (is it an interface of another kind, or for another number of queues?)"
            : error.description
    }
}
