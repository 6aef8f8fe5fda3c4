import VMMBase
import VMMHost
import VMMSandbox
import VMMVirtIO

/// `--vsock`: a socket between guest and host, on Unix sockets of the host.
package struct VsockSpec: DeviceSpec, Decodable {
    package static let word = "vsock"
    package static let summary = "A socket device: guest and host connect through Unix sockets"
    package static let isHotpluggable = true
    package static var fields: [OptionField] {
        [
            OptionField("cid", "<n>", "the guest's address, 3 to 4294967294")
                .required.within(addresses),
            OptionField("socket", "<path>", "the socket that clients of the host connect to")
                .required,
            OptionField("id", "<name>", "the device's name", default: "_vsock<n>"),
        ] + PlaceOptions.fields
    }

    /// 0, 1 and 2 stand for the hypervisor, the guest itself and the host; the highest number
    /// for any address.
    private static let addresses: ClosedRange<UInt32> = 3...(.max - 1)
    /// Clients that may wait until the guest's driver is there; the kernel's own limit is 4096.
    private static let backlog: Int32 = 4096
    /// Descriptors that connections leave to the rest of the machine at most: with all PCI slots
    /// full of disks and interfaces, each with tens of queues and five descriptors a queue.
    private static let mostReserved = 16384

    package let cid: UInt32
    package let socket: String
    package let id: String?
    package let place: PlaceOptions

    private enum CodingKeys: String, CodingKey {
        case cid
        case socket
        case id
    }

    package init(from decoder: any Decoder) throws {
        let keys = try decoder.container(keyedBy: CodingKeys.self)
        cid = try keys.decode(UInt32.self, forKey: .cid)
        socket = try keys.decode(String.self, forKey: .socket)
        id = try keys.decodeIfPresent(String.self, forKey: .id)
        place = try PlaceOptions(from: decoder)
    }

    package static var sandbox: SandboxNeeds { .sockets }

    package var files: [SandboxFile] { [.socket(socket)] }

    package func problems() -> [ConfigurationProblem] {
        var problems: [ConfigurationProblem] = []
        if !Self.addresses.contains(cid) {
            problems.append(
                problem("cid", "\(cid)", "is reserved; a guest has one from 3 to 4294967294"))
        }
        let length = socket.utf8.count
        if length == 0 || length > UnixListener.maximumPathLength {
            problems.append(
                problem(
                    "socket", socket,
                    "a socket's path has 1 to \(UnixListener.maximumPathLength) bytes"))
        }
        return problems
    }

    /// A queue takes its descriptors only when the driver starts it, which must not fail because
    /// connections have taken them all. So these have half of what the process may have, or more.
    static func connectionLimit(descriptors: Int) -> Int {
        let reserved = min(descriptors / 2, mostReserved)
        return max(1, min(VirtIOVsock.mostConnections, descriptors - reserved))
    }

    package func build(_ context: DeviceContext) throws -> BuiltDevice {
        let listener: UnixListener
        do throws(UnixListener.Failure) {
            listener = try UnixListener(path: socket, backlog: Self.backlog, isPrivate: true)
        } catch {
            throw ConfigurationProblem(
                option: "--vsock socket", value: "", reason: error.description)
        }
        do {
            let limit = Self.connectionLimit(descriptors: ProcessLimits.descriptorLimit)
            let device = try VirtIOVsock(
                id: context.id, guest: UInt64(cid), listener: listener, clock: context.clock,
                limit: limit)
            device.guestIsReady = { [report = context.report] in report(.ready) }
            return .virtIO(device)
        } catch {
            listener.removeFile()
            throw error
        }
    }
}
