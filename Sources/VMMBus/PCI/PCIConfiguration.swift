import VMMBase

/// The 256 bytes of a PCI function's configuration space and the rules for writing them
/// (PCI Local Bus 3.0, chapter 6). A value: whoever holds it locks.
package struct PCIConfiguration: Sendable {
    /// What kind of device this is.
    package struct Identity: Sendable {
        package var vendor: UInt16
        package var device: UInt16
        package var subsystemVendor: UInt16 = 0
        package var subsystem: UInt16 = 0
        package var revision: UInt8 = 0
        /// Base class, sub-class and programming interface.
        package var classCode: (base: UInt8, sub: UInt8, interface: UInt8)

        package init(
            vendor: UInt16, device: UInt16, classCode: (base: UInt8, sub: UInt8, interface: UInt8)
        ) {
            self.vendor = vendor
            self.device = device
            self.classCode = classCode
        }
    }

    package static let byteCount = 256
    private static let commandOffset = 0x04
    private static let statusOffset = 0x06
    private static let firstBAROffset = 0x10
    private static let capabilityPointerOffset = 0x34
    private static let memoryEnable: UInt8 = 1 << 1

    private var bytes = [UInt8](repeating: 0, count: byteCount)
    /// Which bits the guest may change.
    private var writable = [UInt8](repeating: 0, count: byteCount)
    private var nextCapability = 0x40
    private var lastCapabilityLink = capabilityPointerOffset
    /// Size of the 64-bit BAR pair that starts at this index (0, 2 or 4), in bytes.
    private var barSizes: [Int: UInt64] = [:]

    package init(_ identity: Identity) {
        put16(identity.vendor, at: 0x00)
        put16(identity.device, at: 0x02)
        bytes[0x08] = identity.revision
        bytes[0x09] = identity.classCode.interface
        bytes[0x0a] = identity.classCode.sub
        bytes[0x0b] = identity.classCode.base
        put16(identity.subsystemVendor, at: 0x2c)
        put16(identity.subsystem, at: 0x2e)
        // I/O, memory, bus master, parity, SERR and interrupt disable can be switched.
        writable[Self.commandOffset] = 0x47
        writable[Self.commandOffset + 1] = 0x05
        writable[0x0c] = 0xff
        writable[0x3c] = 0xff
    }

    // MARK: building

    /// Adds a 64-bit memory BAR of `size` bytes (a power of two, 16 at least) at `address`.
    package mutating func addBAR(_ index: Int, size: UInt64, address: GuestAddress) {
        precondition(size.nonzeroBitCount == 1 && size >= 16 && index % 2 == 0 && index < 6)
        barSizes[index] = size
        let offset = Self.firstBAROffset + 4 * index
        let writableBits = ~(size - 1)
        for byte in 0..<8 {
            writable[offset + byte] = UInt8(truncatingIfNeeded: writableBits >> UInt64(8 * byte))
            bytes[offset + byte] = UInt8(truncatingIfNeeded: address.rawValue >> UInt64(8 * byte))
        }
        // Memory space, 64 bits wide, not prefetchable.
        bytes[offset] |= 0b0100
    }

    /// Appends a capability (`body` follows the two header bytes) and returns where it starts.
    package mutating func addCapability(
        id: UInt8, body: [UInt8], writableBody: [UInt8] = []
    ) -> Int {
        let start = nextCapability
        precondition(start + 2 + body.count <= Self.byteCount, "capabilities fit in 256 bytes")
        bytes[lastCapabilityLink] = UInt8(start)
        bytes[start] = id
        bytes.replaceSubrange(start + 2..<start + 2 + body.count, with: body)
        writable.replaceSubrange(start + 2..<start + 2 + writableBody.count, with: writableBody)
        bytes[Self.statusOffset] |= 1 << 4
        lastCapabilityLink = start + 1
        nextCapability = (start + 2 + body.count + 3) & ~3
        return start
    }

    // MARK: the guest's side

    /// Reads 1, 2 or 4 bytes; all ones beyond the 256 bytes.
    package func read(at offset: Int, width: AccessWidth) -> UInt32 {
        guard offset >= 0, offset + width.byteCount <= Self.byteCount, width != .quadWord else {
            return UInt32(truncatingIfNeeded: width.allOnes)
        }
        return (0..<width.byteCount).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
    }

    /// Writes the bits that may be written.
    package mutating func write(at offset: Int, width: AccessWidth, value: UInt32) {
        guard offset >= 0, offset + width.byteCount <= Self.byteCount, width != .quadWord else {
            return
        }
        for index in 0..<width.byteCount {
            let mask = writable[offset + index]
            let byte = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
            bytes[offset + index] = (bytes[offset + index] & ~mask) | (byte & mask)
        }
    }

    /// Where the guest put BAR `index`; nil while memory decoding is off or it has no sense.
    package func barRange(_ index: Int) -> GuestRange? {
        bytes[Self.commandOffset] & Self.memoryEnable != 0 ? barPlace(index) : nil
    }

    /// Where the guest put BAR `index`, decoding or not; nil where it has no sense.
    package func barPlace(_ index: Int) -> GuestRange? {
        guard let size = barSizes[index] else { return nil }
        let offset = Self.firstBAROffset + 4 * index
        let raw = (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
        let address = raw & ~(size - 1)
        return address == 0 ? nil : GuestRange(start: GuestAddress(address), count: size)
    }

    /// One byte for the owner of a capability, without the guest's restrictions.
    package func byte(at offset: Int) -> UInt8 {
        bytes[offset]
    }

    private mutating func put16(_ value: UInt16, at offset: Int) {
        bytes[offset] = UInt8(truncatingIfNeeded: value)
        bytes[offset + 1] = UInt8(truncatingIfNeeded: value >> 8)
    }
}
