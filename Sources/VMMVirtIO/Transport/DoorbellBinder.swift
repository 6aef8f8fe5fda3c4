import VMMBase
import VMMHost

/// What a driver writes to ring for one queue.
package struct Doorbell: Hashable, Sendable {
    package let address: GuestAddress
    /// The 32-bit value that rings, where queues share an address; else any write does.
    package let value: UInt32?

    package init(address: GuestAddress, value: UInt32? = nil) {
        self.address = address
        self.value = value
    }
}

/// Binds an eventfd to a doorbell, so that the driver's write costs no exit to us. Any thread.
package protocol DoorbellBinder: Sendable {
    func bind(_ event: EventFD, to doorbell: Doorbell) throws
    func unbind(_ event: EventFD, from doorbell: Doorbell)
}
