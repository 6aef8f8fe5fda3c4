import VMMBase
import VMMHost
import VMMNetwork
import VMMVirtIO

/// `--net`: a virtio-net device on a tap interface of the host.
package struct NetworkSpec: DeviceSpec, Decodable {
    package static let word = "net"
    package static let summary = "A network interface, on a tap of the host"
    package static let isRepeatable = true
    package static let fields = [
        OptionField("tap", "<name>", "the tap interface", default: "a new one"),
        OptionField("ip", "<address>", "address of the host's end; needs mask"),
        OptionField("mask", "<netmask>", "its netmask; needs ip"),
        OptionField("mac", "<address>", "the guest's address", default: "random"),
        OptionField(
            "offload_csum", "on|off", "checksums may be left to the other side", default: "on"),
        OptionField("offload_tso", "on|off", "TCP segmentation too", default: "on"),
        OptionField("offload_ufo", "on|off", "UDP fragmentation too", default: "on"),
        OptionField("queue_size", "<n>", "buffers in a queue, a power of two", default: "256"),
        OptionField("id", "<name>", "the device's name", default: "_net<n>"),
        OptionField(
            "pci_device_id", "<n>", "device number on the PCI bus", default: "the next free"),
    ]

    package let tap: String?
    package let address: String?
    package let mask: String?
    package let mac: String?
    package let offloadsChecksum: Bool?
    package let offloadsTCP: Bool?
    package let offloadsUDP: Bool?
    package let queueSize: UInt16?
    package let id: String?
    package let pciDevice: UInt8?

    private enum CodingKeys: String, CodingKey {
        case tap
        case address = "ip"
        case mask
        case mac
        case offloadsChecksum = "offload_csum"
        case offloadsTCP = "offload_tso"
        case offloadsUDP = "offload_ufo"
        case queueSize = "queue_size"
        case id
        case pciDevice = "pci_device_id"
    }

    package func problems() -> [ConfigurationProblem] {
        var problems = addressProblems()
        if let tap, tap.isEmpty || tap.utf8.count > TapInterface.maximumNameLength {
            problems.append(problem("tap", tap, "an interface's name has 1 to 15 bytes"))
        }
        if let mac {
            let parsed = MACAddress(mac)
            if parsed == nil {
                problems.append(
                    problem("mac", mac, "expected six pairs of hex digits, aa:bb:cc:dd:ee:ff"))
            } else if parsed?.isMulticast == true {
                problems.append(
                    problem("mac", mac, "is a group address; bit 0 of the first byte is set"))
            }
        }
        // Linux sends frames in up to 19 pieces; 1024 is what one readv takes (IOV_MAX).
        if let queueSize, queueSize.nonzeroBitCount != 1 || !(32...1024).contains(queueSize) {
            problems.append(
                problem("queue_size", "\(queueSize)", "expected a power of two from 32 to 1024"))
        }
        if offloadsChecksum == false, offloadsTCP == true || offloadsUDP == true {
            problems.append(
                problem(
                    "offload_csum", "off", "segmentation offloads need it; switch those off too"))
        }
        return problems
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
    private var offloads: NetworkOffloads {
        let checksum = offloadsChecksum ?? true
        return NetworkOffloads(
            checksum: checksum, tcp: checksum && offloadsTCP ?? true,
            udp: checksum && offloadsUDP ?? true)
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        let interface: TapInterface
        do throws(HostError) {
            interface = try TapInterface(name: tap)
            if let address = address.flatMap({ IPAddress($0) }),
                let mask = mask.flatMap({ IPAddress($0) })
            {
                try interface.setAddress(address, mask: mask)
            }
            try interface.bringUp()
        } catch {
            throw problem("tap", tap ?? "", explain(error))
        }
        Log.info("\(context.id): tap \(interface.name)")
        return .virtIO(
            VirtIONetwork(
                id: context.id, backend: TapBackend(interface),
                mac: mac.flatMap { MACAddress($0) } ?? .random(), offloads: offloads,
                queueSize: queueSize ?? 256))
    }

    private func explain(_ error: HostError) -> String {
        error.isPermission
            ? "\(error) (needs the capability CAP_NET_ADMIN, or a tap that belongs to you)"
            : error.description
    }
}
