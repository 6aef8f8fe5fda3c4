import VMMBase

/// Bytes that the monitor puts into guest memory before the first instruction.
package struct GuestBlob: Hashable, Sendable {
    /// Guest-physical address of the first byte.
    package let address: GuestAddress
    /// The bytes.
    package let bytes: [UInt8]

    /// Any bytes, at any place; the planner decides whether they fit.
    package init(address: GuestAddress, bytes: [UInt8]) {
        self.address = address
        self.bytes = bytes
    }
}
