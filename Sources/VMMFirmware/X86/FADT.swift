import VMMBase

/// The fixed hardware (ACPI 6.3, 5.2.9): there is none but a reset register, the sleep registers
/// and the PM timer.
struct FADT {
    /// Guest-physical address of the DSDT.
    let dsdt: UInt64
    let hasCMOSClock: Bool

    private static let revision: UInt8 = 6
    private static let minorRevision: UInt8 = 3
    private static let byteCount = 276
    /// The port that resets the machine when 1 is written, and that turns it off.
    private static let resetAndSleepPort: UInt64 = 0x600
    private static let timerPort: UInt64 = 0x608

    private enum Flags {
        static let wbinvd: UInt32 = 1 << 0
        static let noFixedPowerButton: UInt32 = 1 << 4
        static let noFixedSleepButton: UInt32 = 1 << 5
        static let timerHas32Bits: UInt32 = 1 << 8
        static let resetRegister: UInt32 = 1 << 10
        static let hardwareReduced: UInt32 = 1 << 20
    }

    private enum BootArchitecture {
        static let noVGA: UInt16 = 1 << 2
        static let noASPM: UInt16 = 1 << 4
        static let noCMOSClock: UInt16 = 1 << 5
    }

    var table: ACPITable {
        var table = ByteBuilder()
        table.appendZeros(Self.byteCount)
        table.patch(UInt8(4), at: 91)  // PM_TMR_LEN
        let architecture = BootArchitecture.noVGA | BootArchitecture.noASPM
        table.patch(architecture | (hasCMOSClock ? 0 : BootArchitecture.noCMOSClock), at: 109)
        let buttons = Flags.noFixedPowerButton | Flags.noFixedSleepButton
        table.patch(
            Flags.wbinvd | buttons | Flags.timerHas32Bits | Flags.resetRegister
                | Flags.hardwareReduced, at: 112)
        Self.patchRegister(&table, at: 116, port: Self.resetAndSleepPort, accessBytes: 1)
        table.patch(UInt8(1), at: 128)  // RESET_VALUE
        table.patch(Self.minorRevision, at: 131)
        table.patch(dsdt, at: 140)
        Self.patchRegister(&table, at: 208, port: Self.timerPort, accessBytes: 4)
        Self.patchRegister(&table, at: 244, port: Self.resetAndSleepPort, accessBytes: 1)
        Self.patchRegister(&table, at: 256, port: Self.resetAndSleepPort, accessBytes: 1)
        for (index, character) in "SWIFTLET".utf8.enumerated() {
            table.patch(character, at: 268 + index)  // hypervisor vendor identity
        }
        let body = Array(table.bytes.dropFirst(ACPITable.headerBytes))
        return ACPITable(signature: "FACP", revision: Self.revision, body: body)
    }

    /// A generic address in I/O space (5.2.3.2) as wide as one access of 1 or 4 bytes.
    private static func patchRegister(
        _ table: inout ByteBuilder, at offset: Int, port: UInt64, accessBytes: UInt8
    ) {
        let systemIO: UInt8 = 1
        let accessSize: UInt8 = accessBytes == 1 ? 1 : 3
        table.patch(systemIO, at: offset)
        table.patch(accessBytes * 8, at: offset + 1)
        table.patch(accessSize, at: offset + 3)
        table.patch(port, at: offset + 4)
    }
}
