/// A message-signalled interrupt: the write of `data` to `address` that a device would make.
package struct InterruptMessage: Hashable, Sendable {
    package var address: UInt64
    package var data: UInt32

    package init(address: UInt64, data: UInt32) {
        self.address = address
        self.data = data
    }
}
