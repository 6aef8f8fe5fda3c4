/// Numbers of the virtio-over-PCI transport (VirtIO 1.3, 4.1), and our layout of its one BAR.
enum VirtIOPCI {
    static let vendor: UInt16 = 0x1af4
    /// Modern device ids are this plus the device type.
    static let firstDeviceID: UInt16 = 0x1040
    static let barIndex = 0
    /// Each structure starts a page of its own, so that none shares one with the doorbells.
    static let barSize: UInt64 = 0x10000
    static let commonOffset: UInt64 = 0x0000
    /// Up to `queue_reset`.
    static let commonCount: UInt64 = 60
    static let interruptStatusOffset: UInt64 = 0x1000
    static let deviceConfigurationOffset: UInt64 = 0x2000
    static let deviceConfigurationCount: UInt64 = 0x1000
    static let notifyOffset: UInt64 = 0x3000
    static let notifyCount: UInt64 = 0x1000
    static let notifyMultiplier: UInt64 = 4
    static let vectorTableOffset: UInt64 = 0x8000
    static let vectorTableCount: UInt64 = 0x4000
    static let pendingOffset: UInt64 = 0xc000
    static let pendingCount: UInt64 = 0x1000

    /// Vendor capability types (4.1.4).
    enum Structure: UInt8 {
        case common = 1
        case notify = 2
        case interruptStatus = 3
        case device = 4
        case pciAccess = 5
    }

    static let vendorCapability: UInt8 = 0x09
    static let msixCapability: UInt8 = 0x11
}
