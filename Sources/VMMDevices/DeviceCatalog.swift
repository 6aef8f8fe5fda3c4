/// Every kind of device there is. A new device adds its folder, its line here and its test.
package enum DeviceCatalog {
    /// In the order of their PCI slots: consoles, disks, networks, entropy, vsock, watchdog, and
    /// the device for panics (as CH has it).
    package static let all: [any DeviceSpec.Type] = [
        SerialSpec.self,
        DebugConsoleSpec.self,
        ConsoleSpec.self,
        BlockSpec.self,
        NetworkSpec.self,
        EntropySpec.self,
        VsockSpec.self,
        WatchdogSpec.self,
        PanicSpec.self,
    ]
}
