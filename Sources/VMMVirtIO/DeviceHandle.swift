/// What may be asked of a device while its loop does what it does. Any thread.
package protocol DeviceHandle: Sendable {
    /// What the device has done since it was made, by Cloud Hypervisor's names.
    var counters: [(name: String, value: UInt64)] { get }
    /// The files that the device turned out to be made of, as it or its user named them.
    var files: [(path: String, isReadOnly: Bool)] { get }
    /// Gives the device another size in bytes; `done` is told, on any thread, why not, or nil.
    /// False when it has no size that could change.
    func resize(to byteCount: UInt64, done: @escaping @Sendable (String?) -> Void) -> Bool
}

extension DeviceHandle {
    package var files: [(path: String, isReadOnly: Bool)] { [] }

    package func resize(to byteCount: UInt64, done: @escaping @Sendable (String?) -> Void) -> Bool {
        false
    }
}
