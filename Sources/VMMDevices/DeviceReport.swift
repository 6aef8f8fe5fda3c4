/// What a device has to tell the machine that it is in.
package enum DeviceReport: Equatable, Sendable {
    /// The guest's kernel panics, or has another kernel look after that.
    case panicked(String)
    /// The guest is to be reset.
    case watchdogExpired
    /// The guest says that it is up.
    case ready
}
