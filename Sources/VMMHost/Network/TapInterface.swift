import CVMMLinux
import Glibc
import Synchronization

/// A tap network interface of the host (kernel documentation, networking/tuntap). Frames go in
/// and out with the 12-byte header of virtio-net in front.
package final class TapInterface {
    /// What the guest's driver may leave undone in frames that it sends or receives.
    package struct Offloads: OptionSet, Sendable {
        package let rawValue: UInt32
        package init(rawValue: UInt32) { self.rawValue = rawValue }

        package static let checksum = Offloads(rawValue: UInt32(TUN_F_CSUM))
        package static let tcp4 = Offloads(rawValue: UInt32(TUN_F_TSO4))
        package static let tcp6 = Offloads(rawValue: UInt32(TUN_F_TSO6))
        package static let congestion = Offloads(rawValue: UInt32(TUN_F_TSO_ECN))
        package static let udp = Offloads(rawValue: UInt32(TUN_F_UFO))
        // TUN_F_USO4 and TUN_F_USO6 of Linux 6.2: older headers lack them.
        package static let udpSegments4 = Offloads(rawValue: 0x20)
        package static let udpSegments6 = Offloads(rawValue: 0x40)
    }

    /// Bytes of the header that stands before each frame (virtio_net_hdr_v1).
    package static let headerByteCount: UInt64 = 12
    /// An interface's name has at most 15 bytes.
    package static let maximumNameLength = 15

    /// One for each queue: frames of one flow come by one of them.
    package let queues: [FileDescriptor]
    package let name: String

    /// Attaches to the tap `name`, or makes one that lives as long as this process; nil lets the
    /// kernel choose a name. A tap that is there must have been made for several queues if `count`
    /// is above 1, and for one otherwise.
    package init(name wanted: String?, queues count: Int = 1) throws(HostError) {
        var queues: [FileDescriptor] = []
        var found = wanted ?? "vmtap%d"
        for _ in 0..<count {
            let queue = try FileDescriptor.open("/dev/net/tun", [.readWrite, .nonBlocking])
            var request = unsafe ifreq()
            unsafe Self.setName(&request, found)
            let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (count > 1 ? IFF_MULTI_QUEUE : 0)
            unsafe request.ifr_ifru.ifru_flags = Int16(flags)
            guard unsafe queue.ioctl(VMM_TUNSETIFF, with: &request) == 0 else {
                throw .last("open the tap", wanted ?? "")
            }
            found = unsafe Self.name(request)
            queues.append(queue)
        }
        name = found
        self.queues = queues
        try setHeaderSize()
    }

    /// Uses descriptors of a tap or macvtap that somebody opened for this process: one for
    /// each queue, all of one interface, with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
    package init(using descriptors: [Int32]) throws(HostError) {
        var queues: [FileDescriptor] = []
        var found: String?
        for raw in descriptors {
            let queue = try FileDescriptor.inherited(raw)
            var request = unsafe ifreq()
            guard unsafe queue.ioctl(VMM_TUNGETIFF, with: &request) == 0 else {
                throw .last("use descriptor \(raw) as a tap")
            }
            let flags = unsafe Int32(UInt16(bitPattern: request.ifr_ifru.ifru_flags))
            let needed = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
            guard flags & needed == needed else {
                throw HostError(
                    "use a descriptor without IFF_TAP, IFF_NO_PI and IFF_VNET_HDR", "\(raw)",
                    code: EINVAL)
            }
            let name = unsafe Self.name(request)
            guard found == nil || found == name else {
                throw HostError("use descriptor \(raw) of another interface", name, code: EINVAL)
            }
            found = name
            try queue.setNonBlocking(true)
            queues.append(queue)
        }
        name = found ?? ""
        self.queues = queues
        try setHeaderSize()
    }

    private func setHeaderSize() throws(HostError) {
        for queue in queues {
            var size = Int32(Self.headerByteCount)
            guard queue.ioctl(VMM_TUNSETVNETHDRSZ, with: &size) == 0 else {
                throw .last("set the header size of the tap", name)
            }
        }
    }

    private func request(
        _ code: vmm_ioctl, _ argument: UInt64
    ) -> Int32 {
        queues.first?.ioctl(code, argument) ?? -1
    }

    /// Whether frames come to one of several queues.
    package func setEnabled(_ isEnabled: Bool, _ queue: FileDescriptor) throws(HostError) {
        var request = unsafe ifreq()
        unsafe request.ifr_ifru.ifru_flags =
            Int16(isEnabled ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE)
        guard unsafe queue.ioctl(VMM_TUNSETQUEUE, with: &request) == 0 else {
            throw .last("switch a queue of the tap", name)
        }
    }

    /// Whether the host knows UDP segmentation (Linux 6.2).
    package var knowsUDPSegments: Bool {
        let offloads: Offloads = [.checksum, .udpSegments4, .udpSegments6]
        defer { _ = request(VMM_TUNSETOFFLOAD, 0) }
        return request(VMM_TUNSETOFFLOAD, UInt64(offloads.rawValue)) == 0
    }

    /// Tells the host which offloads the guest's driver can take in received frames.
    package func setOffloads(_ offloads: Offloads) throws(HostError) {
        guard request(VMM_TUNSETOFFLOAD, UInt64(offloads.rawValue)) == 0 else {
            throw .last("set the offloads of the tap", name)
        }
    }

    /// Gives the host's end an address and netmask of one family.
    package func setAddress(_ address: IPAddress, mask: IPAddress) throws(HostError) {
        switch address.family {
        case .v4:
            unsafe try configure(VMM_SIOCSIFADDR, "set the address of the tap") { request in
                unsafe request.ifr_ifru.ifru_addr = Self.socketAddress(address)
            }
            unsafe try configure(VMM_SIOCSIFNETMASK, "set the netmask of the tap") { request in
                unsafe request.ifr_ifru.ifru_netmask = Self.socketAddress(mask)
            }
        case .v6:
            try setIPv6Address(address, prefixLength: mask.prefixLength ?? 128)
        }
    }

    /// Sets the largest packet, in bytes.
    package func setMTU(_ mtu: UInt16) throws(HostError) {
        unsafe try configure(VMM_SIOCSIFMTU, "set the MTU of the tap") { request in
            unsafe request.ifr_ifru.ifru_mtu = Int32(mtu)
        }
    }

    /// The largest packet, in bytes.
    package func mtu() throws(HostError) -> Int {
        var mtu: Int32 = 0
        unsafe try configure(VMM_SIOCGIFMTU, "read the MTU of the tap", { _ in }) { request in
            mtu = unsafe request.ifr_ifru.ifru_mtu
        }
        return Int(mtu)
    }

    /// ARPHRD_ETHER, of a header that clashes with libc's.
    private static let ethernet: sa_family_t = 1

    /// Gives the host's end an Ethernet address of six bytes.
    package func setHardwareAddress(_ bytes: [UInt8]) throws(HostError) {
        unsafe try configure(VMM_SIOCSIFHWADDR, "set the address of the tap") { request in
            unsafe request.ifr_ifru.ifru_hwaddr.sa_family = Self.ethernet
            unsafe withUnsafeMutableBytes(of: &request.ifr_ifru.ifru_hwaddr.sa_data) { data in
                unsafe data.copyBytes(from: bytes.prefix(6))
            }
        }
    }

    /// Switches the interface on.
    package func bringUp() throws(HostError) {
        var flags: Int16 = 0
        unsafe try configure(VMM_SIOCGIFFLAGS, "read the flags of the tap", { _ in }) { request in
            flags = unsafe request.ifr_ifru.ifru_flags
        }
        // IFF_RUNNING is the kernel's to set, some time after the tap is attached; asking for it
        // would need a right that the owner of an existing tap need not have.
        let up = Int16(truncatingIfNeeded: IFF_UP)
        if flags & up != 0 { return }
        try unsafe configure(VMM_SIOCSIFFLAGS, "switch on the tap") { request in
            unsafe request.ifr_ifru.ifru_flags = flags | up
        }
    }

    // MARK: requests

    private func configure(
        _ request: vmm_ioctl, _ operation: String, _ fill: (inout ifreq) -> Void,
        _ result: (ifreq) -> Void = { _ in }
    ) throws(HostError) {
        let socket = try Self.controlSocket(AF_INET)
        var argument = unsafe ifreq()
        unsafe Self.setName(&argument, name)
        unsafe fill(&argument)
        guard unsafe socket.ioctl(request, with: &argument) == 0 else {
            throw .last(operation, name)
        }
        unsafe result(argument)
    }

    /// The struct that <linux/ipv6.h> defines, which clashes with libc's headers.
    private struct IPv6Request {
        var address: in6_addr
        var prefixLength: UInt32
        var interfaceIndex: Int32
    }

    private func setIPv6Address(_ address: IPAddress, prefixLength: Int) throws(HostError) {
        let socket = try Self.controlSocket(AF_INET6)
        var index = unsafe ifreq()
        unsafe Self.setName(&index, name)
        guard unsafe socket.ioctl(VMM_SIOCGIFINDEX, with: &index) == 0 else {
            throw .last("find the tap", name)
        }
        var target = in6_addr()
        unsafe withUnsafeMutableBytes(of: &target) { unsafe $0.copyBytes(from: address.bytes) }
        var request = unsafe IPv6Request(
            address: target, prefixLength: UInt32(prefixLength),
            interfaceIndex: index.ifr_ifru.ifru_ivalue)
        let code = socket.ioctl(VMM_SIOCSIFADDR, with: &request)
        // An address that is already there is what was asked for.
        guard code == 0 || errno == EEXIST else { throw .last("set the address of the tap", name) }
    }

    /// By family; nil as long as the process may make such sockets.
    private static let keptSockets = Mutex<[Int32: FileDescriptor]?>(nil)

    /// Makes the sockets by which interfaces get their addresses, for a process that may make none
    /// later. They belong to the loopback interface, and one without capabilities cannot change
    /// that: nothing can be sent by them to any other host. A family that the kernel does not have
    /// is left out: then addresses of it are refused.
    package static func keepControlSockets() {
        var kept: [Int32: FileDescriptor] = [:]
        for family in [AF_INET, AF_INET6] {
            guard let socket = try? makeControlSocket(family),
                unsafe vmm_bind_to_device(socket.rawValue, "lo") == 0
            else { continue }
            kept[family] = socket
        }
        keptSockets.withLock { $0 = kept }
    }

    private static func controlSocket(_ family: Int32) throws(HostError) -> FileDescriptor {
        guard let kept = keptSockets.withLock({ $0 }) else { return try makeControlSocket(family) }
        guard let socket = kept[family] else {
            throw HostError("open a socket", code: EAFNOSUPPORT)
        }
        return socket
    }

    private static func makeControlSocket(_ family: Int32) throws(HostError) -> FileDescriptor {
        let type = Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let raw = socket(family, type, 0)
        guard raw >= 0 else { throw .last("open a socket") }
        return FileDescriptor(owning: raw)
    }

    private static func setName(_ request: inout ifreq, _ name: String) {
        unsafe withUnsafeMutableBytes(of: &request.ifr_ifrn.ifrn_name) { bytes in
            // The last byte stays zero.
            unsafe bytes.copyBytes(from: name.utf8.prefix(maximumNameLength))
        }
    }

    private static func name(_ request: ifreq) -> String {
        unsafe withUnsafeBytes(of: request.ifr_ifrn.ifrn_name) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    private static func socketAddress(_ address: IPAddress) -> sockaddr {
        var generic = sockaddr()
        generic.sa_family = sa_family_t(AF_INET)
        // As in sockaddr_in: two bytes of port, then the address (ip(7)).
        unsafe withUnsafeMutableBytes(of: &generic.sa_data) { data in
            unsafe UnsafeMutableRawBufferPointer(rebasing: data[2..<6])
                .copyBytes(from: address.bytes)
        }
        return generic
    }
}
