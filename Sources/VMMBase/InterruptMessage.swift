/// A message-signalled interrupt: the write of `data` to `address` that a device would make.
package struct InterruptMessage: Hashable, Sendable {
    package var address: UInt64
    package var data: UInt32

    package init(address: UInt64, data: UInt32) {
        self.address = address
        self.data = data
    }

    /// Raises the non-maskable interrupt of one local APIC (Intel SDM 3A, 11.11): bits 8 to 14 of
    /// its id are where guests with more than 255 vCPUs put them.
    package static func nonMaskable(apicID: UInt32) -> InterruptMessage {
        let id = UInt64(apicID)
        return InterruptMessage(
            address: 0xfee0_0000 | (id & 0xff) << 12 | (id >> 8 & 0x7f) << 5, data: 0x400)
    }
}
