import CVMMLinux
import Glibc

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
    }

    /// Bytes of the header that stands before each frame (virtio_net_hdr_v1).
    package static let headerByteCount: UInt64 = 12
    /// An interface's name has at most 15 bytes.
    package static let maximumNameLength = 15

    package let descriptor: FileDescriptor
    package let name: String

    /// Attaches to the tap `name`, or makes one that lives as long as this process; nil lets the
    /// kernel choose a name.
    package init(name wanted: String?) throws(HostError) {
        descriptor = try FileDescriptor.open("/dev/net/tun", [.readWrite, .nonBlocking])
        var request = unsafe ifreq()
        unsafe Self.setName(&request, wanted ?? "vmtap%d")
        unsafe request.ifr_ifru.ifru_flags = Int16(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        guard unsafe descriptor.ioctl(VMM_TUNSETIFF, with: &request) == 0 else {
            throw .last("open the tap", wanted ?? "")
        }
        name = unsafe Self.name(request)
        var size = Int32(Self.headerByteCount)
        guard descriptor.ioctl(VMM_TUNSETVNETHDRSZ, with: &size) == 0 else {
            throw .last("set the header size of the tap", name)
        }
    }

    /// Tells the host which offloads the guest's driver can take in received frames.
    package func setOffloads(_ offloads: Offloads) throws(HostError) {
        guard descriptor.ioctl(VMM_TUNSETOFFLOAD, UInt64(offloads.rawValue)) == 0 else {
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

    private static func controlSocket(_ family: Int32) throws(HostError) -> FileDescriptor {
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
