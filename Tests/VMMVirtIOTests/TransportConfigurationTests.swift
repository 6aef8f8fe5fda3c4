import Testing
import VMMBase
import VMMBus
import VMMHost
import VMMTestSupport
import VMMVirtIO

private typealias Common = PCIDriver.Common

/// The device's configuration, MSI-X control, the access window and the BAR of the transport.
@Suite("VirtIOPCITransport's configuration")
struct TransportConfigurationTests {
    /// A free place for the BAR, and one that a neighbour has.
    private static let elsewhere: UInt64 = 0x2_0000_0000
    private static let neighbour: UInt64 = 0x3_0000_0000

    let driver: PCIDriver
    let device: ProbeDevice

    init() throws {
        driver = try PCIDriver()
        device = driver.device
    }

    // MARK: device configuration

    @Test("every byte is there at every width, zeros behind the end")
    func reads() {
        #expect(driver.readDevice(0, .doubleWord) == 0x4433_2211)
        #expect(driver.readDevice(1, .word) == 0x3322)
        #expect(driver.readDevice(3, .quadWord) == 0x5544)
        #expect(driver.readDevice(0xfff, .quadWord) == 0)
    }

    @Test("a write reaches the device where the device lets it, whole and in order")
    func writes() {
        driver.start()
        driver.writeDevice(0, .doubleWord, 0xaabb_ccdd)
        driver.settle()
        #expect(device.writes == [[0x11, 0x22, 0xbb, 0xaa, 0x55]])
        #expect(device.configuration[2] == 0xbb)
    }

    @Test("a write that the device does not take reads back as what the device has")
    func refusedWrites() {
        driver.writeDevice(2, .byte, 0)
        driver.settle()
        #expect(driver.readDevice(2, .byte) == 0x33)
    }

    @Test("a reset shows the configuration that the device went back to")
    func resetConfiguration() {
        driver.start()
        driver.writeDevice(2, .byte, 0)
        driver.settle()
        let written = driver.readDevice(2, .byte)
        driver.reset()
        #expect(written == 0)
        #expect(driver.readDevice(2, .byte) == 0x33)
    }

    @Test("any number of writes is one message to the loop, with the last state")
    func writesAreCollected() {
        driver.start()
        for value in 0..<1000 { driver.writeDevice(2, .byte, UInt64(value & 0xff)) }
        driver.settle()
        // 999 is 0x3e7.
        #expect(device.writes.map { $0[2] } == [0xe7])
    }

    @Test("a write behind DRIVER_OK reaches the device that is active by then")
    func writeBehindStart() {
        driver.negotiate()
        driver.setUp(queue: 0)
        driver.writeDevice(2, .byte, 1)
        driver.setStatus(driver.status | PCIDriver.Status.driverOK)
        driver.writeDevice(2, .byte, 7)
        driver.settle()
        #expect(device.configuration[2] == 7)
        #expect(driver.readDevice(2, .byte) == 7)
    }

    @Test("a change of the device's own moves the generation when it is read, and interrupts")
    func generation() {
        driver.start()
        let before = driver.read(Common.generation, .byte)
        device.configuration[0] = 0x99
        device.configurationChanged?()
        device.configurationChanged?()

        let value = driver.readDevice(0, .byte)
        let after = driver.read(Common.generation, .byte)
        _ = driver.readDevice(0, .byte)

        #expect(value == 0x99)
        #expect(after == before + 1)
        #expect(driver.read(Common.generation, .byte) == after)
        #expect(driver.interrupts.vectors[0].signals == 2)
        #expect(driver.takeInterruptStatus() == 2)
    }

    @Test("before DRIVER_OK a change interrupts nobody")
    func changeBeforeStart() {
        driver.setMSIX(enabled: true)
        driver.program(vector: 0)
        driver.write(Common.configurationVector, .word, 0)
        device.configurationChanged?()
        #expect(driver.interrupts.vectors[0].signals == 0)
    }

    // MARK: MSI-X

    @Test("MSI-X is switched and masked through configuration space, at every width")
    func msixControl() {
        driver.start()
        driver.setMSIX(enabled: true, masked: true)
        device.configurationChanged?()
        let masked = driver.interrupts.vectors[0].signals
        // Message Control is the upper half of the capability's first four bytes.
        driver.writeSpace(driver.msixCapability, .doubleWord, 0x8000_0000)
        let unmasked = driver.interrupts.vectors[0].signals
        driver.writeSpace(driver.msixCapability + 3, .byte, 0)
        device.configurationChanged?()

        #expect(masked == 0 && unmasked == 1)
        #expect(driver.interrupts.vectors[0].signals == 1)
        #expect(driver.interrupts.vectors[0].routed?.data == 0x40)
    }

    // MARK: the window in configuration space

    @Test("the window reads and writes registers as the BAR does")
    func window() {
        driver.aimWindow(bar: 0, offset: (driver.structures[4] ?? 0), count: 4)
        let configuration = driver.readWindow()
        driver.aimWindow(bar: 0, offset: (driver.structures[1] ?? 0) + Common.status, count: 1)
        driver.writeWindow(3, .byte)
        #expect(configuration == 0x4433_2211)
        #expect(driver.readWindow(.byte) == 3)
        #expect(driver.status == 3)
    }

    @Test(
        "a window that is aimed at no register of the BAR reaches nothing",
        arguments: [
            (1, 0x14, 1), (0xff, 0x14, 1), (0, 0x1_0000, 1), (0, 0xffff_ffff, 1), (0, 0x15, 2),
            (0, 0x14, 3), (0, 0x14, 0), (0, 0x14, 8), (0, 0x14, 5), (0, 0x14, 0xffff_ffff),
        ] as [(UInt64, UInt64, UInt64)])
    func badWindow(bar: UInt64, offset: UInt64, count: UInt64) {
        driver.aimWindow(bar: bar, offset: offset, count: count)
        driver.writeWindow(0x0101_0101)
        _ = driver.readWindow()
        #expect(driver.status == 0)
    }

    // MARK: BAR

    @Test("a moved BAR answers at its new address alone, and its doorbells move along")
    func moves() {
        driver.start()
        let old = driver.doorbells.addresses
        driver.moveBAR(to: Self.elsewhere)
        driver.ring(0)
        driver.settle()
        #expect(old == [0, 1].map { PCIDriver.barAddress + 0x3000 + 4 * $0 })
        #expect(driver.doorbells.addresses == [0, 1].map { Self.elsewhere + 0x3000 + 4 * $0 })
        #expect(driver.memoryBus.read(address: PCIDriver.barAddress, width: .byte) == 0xff)
        #expect(driver.read(Common.queueCount, .word) == 2)
        #expect(device.serviced == [0])
        #expect(driver.doorbells.doubleCount == 0)
    }

    @Test("each bound doorbell is the eventfd of its queue")
    func boundDoorbells() {
        driver.start()
        driver.doorbells.event(at: driver.doorbell(1))?.signal()
        driver.settle()
        #expect(device.serviced == [1])
    }

    @Test("sizing finds 64 KiB and disturbs nothing")
    func sizing() {
        driver.start()
        let command = driver.readSpace(4, .word)
        driver.writeSpace(4, .word, command & ~2)
        driver.writeSpace(0x10, .doubleWord, 0xffff_ffff)
        driver.writeSpace(0x14, .doubleWord, 0xffff_ffff)
        let mask = driver.bar
        driver.writeSpace(0x10, .doubleWord, PCIDriver.barAddress & 0xffff_ffff)
        driver.writeSpace(0x14, .doubleWord, PCIDriver.barAddress >> 32)
        let whileOff = driver.read(Common.queueCount, .word)
        driver.writeSpace(4, .word, command)
        #expect(~mask + 1 == 0x1_0000)
        #expect(whileOff == 0xffff)
        #expect(driver.read(Common.queueCount, .word) == 2)
        #expect(driver.doorbells.addresses.count == 2)
    }

    @Test("a BAR moved over something else answers nowhere until it is moved away")
    func conflict() throws {
        try driver.memoryBus.attach(ConstantDevice(0x5a), at: Self.neighbour + 0x8000, count: 4)
        driver.start()
        driver.moveBAR(to: Self.neighbour)
        let there = driver.memoryBus.read(address: Self.neighbour, width: .byte)
        let other = driver.memoryBus.read(address: Self.neighbour + 0x8000, width: .byte)
        let boundThere = driver.doorbells.addresses
        driver.moveBAR(to: PCIDriver.barAddress)

        #expect(there == 0xff && other == 0x5a && boundThere.isEmpty)
        #expect(driver.read(Common.queueCount, .word) == 2)
        #expect(driver.doorbells.addresses.count == 2)
    }

    @Test("a BAR at the ends of the address space is no trap", arguments: [0, .max] as [UInt64])
    func extremes(address: UInt64) {
        driver.start()
        driver.moveBAR(to: address)
        _ = driver.read(Common.status, .byte)
        driver.moveBAR(to: Self.elsewhere)
        #expect(driver.read(Common.queueCount, .word) == 2)
    }

    // MARK: everything at once

    /// The structures, their edges and the gaps between them.
    private static let registers: [UInt64] = [
        0x0000, 0x1000, 0x2000, 0x2fc0, 0x3000, 0x3fc0, 0x4000, 0x8000, 0x8030, 0xbfc0, 0xc000,
        0xcfc0, 0xffc0,
    ]

    @Test("no register traps at any width, offset and value", arguments: registers)
    func everyRegister(start: UInt64) {
        for offset in start..<start + 0x40 {
            for width in AccessWidth.allCases {
                for value in [0, 1, 0x55aa_55aa_55aa_55aa, UInt64.max] {
                    let address = PCIDriver.barAddress + offset
                    _ = driver.memoryBus.read(address: address, width: width)
                    driver.memoryBus.write(address: address, width: width, value: value)
                }
            }
        }
        driver.settle()
        driver.reset()
        driver.start()
        #expect(device.queues.count == 2)
    }

    @Test("no byte of configuration space traps at any width and value")
    func everyConfigurationByte() {
        for offset in 0..<UInt64(0x1000) {
            for width in AccessWidth.allCases {
                _ = driver.readSpace(offset, width)
                driver.writeSpace(offset, width, .max)
                driver.writeSpace(offset, width, 0)
            }
        }
        driver.moveBAR(to: Self.elsewhere)
        driver.reset()
        driver.start()
        #expect(device.queues.count == 2)
    }

    @Test("no aim of the window traps")
    func everyWindow() {
        let offsets = Self.registers + [0x14, 0x15, 0x1000 - 1, 0xffff, 0x1_0000, 0xffff_ffff]
        for bar in [0, 1, 5, 6, 0xff] as [UInt64] {
            for offset in offsets {
                for count in 0...9 as ClosedRange<UInt64> {
                    driver.aimWindow(bar: bar, offset: offset, count: count)
                    _ = driver.readWindow(.byte)
                    _ = driver.readWindow(.word)
                    _ = driver.readWindow()
                    driver.writeWindow(.max)
                    driver.writeWindow(0, .byte)
                }
            }
        }
        driver.settle()
        driver.reset()
        driver.start()
        #expect(device.queues.count == 2)
    }

    @Test("vCPUs that move the BAR at once leave one range on the bus")
    func movingAtOnce() throws {
        let transport = driver.transport
        let threads = try (0..<2).map { thread in
            try HostThread(name: "vcpu", role: .tool) {
                for round in 0..<500 {
                    let place = UInt32(truncatingIfNeeded: (round * 2 + thread) << 16)
                    transport.writeConfiguration(at: 0x10, width: .doubleWord, value: place)
                }
            }
        }
        for thread in threads { thread.join() }
        driver.moveBAR(to: Self.elsewhere)

        let answering = (0..<1001).count { index in
            let address = PCIDriver.barAddress + UInt64(index) << 16
            return driver.memoryBus.read(address: address, width: .byte) != 0xff
        }
        #expect(answering == 0)
        #expect(driver.read(Common.queueCount, .word) == 2)
    }
}
