import CVMMLinux
import Glibc

/// An IPv4 or IPv6 address.
package struct IPAddress: Equatable, Sendable {
    package enum Family: Sendable {
        case v4
        case v6
    }

    package let family: Family
    /// 4 or 16 bytes in network order.
    package let bytes: [UInt8]

    /// Nil when `text` is neither dotted IPv4 nor IPv6.
    package init?(_ text: String) {
        for (family, code, count) in [(Family.v4, AF_INET, 4), (.v6, AF_INET6, 16)] {
            var bytes = [UInt8](repeating: 0, count: count)
            // SAFETY: the buffer has the size that inet_pton writes for this family.
            if unsafe inet_pton(code, text, &bytes) == 1 {
                self.family = family
                self.bytes = bytes
                return
            }
        }
        return nil
    }

    /// The number of leading one bits when the address is a netmask; nil when it is none.
    package var prefixLength: Int? {
        let full = bytes.prefix { $0 == 0xff }.count
        guard full < bytes.count else { return 8 * full }
        let partial = (~bytes[full]).leadingZeroBitCount
        let isMask =
            bytes[full] == ~(0xff >> UInt8(partial))
            && bytes.dropFirst(full + 1).allSatisfy { $0 == 0 }
        return isMask ? 8 * full + partial : nil
    }
}
