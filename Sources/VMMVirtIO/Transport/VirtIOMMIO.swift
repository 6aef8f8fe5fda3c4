/// Numbers of the virtio-over-MMIO transport (VirtIO 1.3, 4.2): version 2 alone.
enum VirtIOMMIO {
    /// "virt", little-endian.
    static let magic: UInt32 = 0x7472_6976
    static let version: UInt32 = 2
    static let vendor: UInt32 = 0x1af4
    static let byteCount: UInt64 = 0x1000
    /// The length and address of a shared memory region that is not there.
    static let noRegion = UInt32.max

    /// Offsets of the control registers (4.2.2), each 32 bits wide.
    enum Register: UInt64 {
        case magic = 0x000
        case version = 0x004
        case deviceID = 0x008
        case vendorID = 0x00c
        case deviceFeatures = 0x010
        case deviceFeaturesSelect = 0x014
        case driverFeatures = 0x020
        case driverFeaturesSelect = 0x024
        case queueSelect = 0x030
        case queueSizeLimit = 0x034
        case queueSize = 0x038
        case queueReady = 0x044
        case queueNotify = 0x050
        case interruptStatus = 0x060
        case interruptAcknowledge = 0x064
        case status = 0x070
        case descriptorsLow = 0x080
        case descriptorsHigh = 0x084
        case driverAreaLow = 0x090
        case driverAreaHigh = 0x094
        case deviceAreaLow = 0x0a0
        case deviceAreaHigh = 0x0a4
        case sharedMemoryLengthLow = 0x0b0
        case sharedMemoryLengthHigh = 0x0b4
        case sharedMemoryBaseLow = 0x0b8
        case sharedMemoryBaseHigh = 0x0bc
        case queueReset = 0x0c0
        case configurationGeneration = 0x0fc
    }

    /// Where the device's configuration space begins.
    static let configurationOffset: UInt64 = 0x100

    /// Bits of the interrupt status.
    enum Interrupt {
        static let usedBuffer: UInt32 = 1
        static let configuration: UInt32 = 2
    }
}
