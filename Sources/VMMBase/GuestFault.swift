/// The guest broke the rules of a device. The device stops (NEEDS_RESET), the virtual machine
/// and the monitor go on. Carries no allocated text, because a guest decides how often it occurs.
package struct GuestFault: Error, Equatable, CustomStringConvertible {
    package let reason: StaticString
    /// The offending number, for the log.
    package let value: UInt64

    package init(_ reason: StaticString, _ value: UInt64 = 0) {
        self.reason = reason
        self.value = value
    }

    package var description: String { "\(reason) (0x\(String(value, radix: 16)))" }

    package static func == (left: GuestFault, right: GuestFault) -> Bool {
        left.description == right.description
    }
}
