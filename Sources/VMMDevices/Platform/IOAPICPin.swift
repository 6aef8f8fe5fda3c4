import VMMBase

/// One pin of an `IOAPIC`: its redirection entry and its input (82093AA, 3.2.4).
struct IOAPICPin {
    private enum Bit {
        static let destinationMode: UInt64 = 1 << 11
        static let deliveryStatus: UInt64 = 1 << 12
        static let remoteIRR: UInt64 = 1 << 14
        static let levelTriggered: UInt64 = 1 << 15
        static let mask: UInt64 = 1 << 16
        static let readOnly = deliveryStatus | remoteIRR
        /// Up to the mask; the rest of the low half is reserved.
        static let low: UInt64 = 0x0001_ffff
        /// The destination, and the seven more bits of it that KVM adds
        /// (KVM_FEATURE_MSI_EXT_DEST_ID).
        static let high: UInt64 = 0xfffe_0000_0000_0000
    }

    /// The 64 bits as the guest reads them.
    private(set) var entry = Bit.mask
    private var isLineHigh = false
    /// An edge came that has not been delivered yet.
    private var hasEdge = false

    private var isLevelTriggered: Bool { entry & Bit.levelTriggered != 0 }
    private var isMasked: Bool { entry & Bit.mask != 0 }
    private var isInService: Bool { entry & Bit.remoteIRR != 0 }

    /// What the pin delivers, as a message; nil while masked. A pin that was masked between a
    /// level interrupt and its end keeps the route until then, or the end would go unnoticed.
    var route: InterruptMessage? { isMasked && !isInService ? nil : message }

    private var message: InterruptMessage {
        let destination = entry >> 56
        let moreDestination = entry >> 49 & 0x7f
        let mode = entry >> 11 & 1
        let vectorAndDelivery = UInt32(truncatingIfNeeded: entry & 0x7ff)
        let trigger: UInt32 = isLevelTriggered ? 1 << 15 | 1 << 14 : 0
        return InterruptMessage(
            address: 0xfee0_0000 | destination << 12 | moreDestination << 5 | mode << 2,
            data: vectorAndDelivery | trigger)
    }

    /// What is to be delivered now, if anything; a level interrupt then waits for its end.
    mutating func takeDelivery() -> InterruptMessage? {
        guard !isMasked else { return nil }
        if isLevelTriggered {
            guard isLineHigh, !isInService else { return nil }
            entry |= Bit.remoteIRR
            return message
        }
        guard hasEdge else { return nil }
        hasEdge = false
        return message
    }

    mutating func setLine(_ level: Bool) {
        // An edge that finds the pin masked is lost (3.2.4, interrupt mask).
        if level, !isLineHigh, !isLevelTriggered, !isMasked { hasEdge = true }
        isLineHigh = level
    }

    mutating func endOfInterrupt(_ vector: UInt8) {
        guard isInService, UInt8(truncatingIfNeeded: entry) == vector else { return }
        entry &= ~Bit.remoteIRR
    }

    mutating func write(_ value: UInt32, isHigh: Bool) {
        if isHigh {
            entry = entry & 0xffff_ffff | UInt64(value) << 32 & Bit.high
            return
        }
        let kept = entry & (0xffff_ffff_0000_0000 | Bit.readOnly)
        entry = kept | UInt64(value) & Bit.low & ~Bit.readOnly
        // Turning a pin to edge and back is how drivers clear the bit on this version.
        if !isLevelTriggered { entry &= ~Bit.remoteIRR }
    }

    mutating func reset() {
        entry = Bit.mask
        hasEdge = false
    }
}
