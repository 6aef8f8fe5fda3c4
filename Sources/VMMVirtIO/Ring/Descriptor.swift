import VMMBase

/// A descriptor of either ring, fetched once: the guest may change it while we look.
struct Descriptor {
    static let byteCount = 16

    enum Flag {
        static let next: UInt16 = 1
        static let write: UInt16 = 2
        static let indirect: UInt16 = 4
    }

    let address: GuestAddress
    let length: UInt32
    let flags: UInt16
    /// A split ring's next descriptor (VirtIO 1.3, 2.7.5); a packed ring's buffer id (2.8.13).
    let link: UInt16

    /// Address in the first eight bytes; length, flags and next in the others.
    init(split low: UInt64, _ high: UInt64) {
        address = GuestAddress(low)
        length = UInt32(truncatingIfNeeded: high)
        flags = UInt16(truncatingIfNeeded: high >> 32)
        link = UInt16(truncatingIfNeeded: high >> 48)
    }

    /// Address in the first eight bytes; length, buffer id and flags in the others.
    init(packed low: UInt64, _ high: UInt64) {
        address = GuestAddress(low)
        length = UInt32(truncatingIfNeeded: high)
        flags = UInt16(truncatingIfNeeded: high >> 48)
        link = UInt16(truncatingIfNeeded: high >> 32)
    }

    func has(_ flag: UInt16) -> Bool { flags & flag != 0 }

    /// How many descriptors the indirect table has that this one names.
    func tableCount(ringSize: UInt16) throws(GuestFault) -> UInt64 {
        let size = UInt64(Self.byteCount)
        let count = UInt64(length) / size
        guard count > 0, count <= UInt64(ringSize), UInt64(length) % size == 0 else {
            throw tableFault
        }
        return count
    }

    var tableFault: GuestFault { GuestFault("indirect descriptor table", address.rawValue) }
}
