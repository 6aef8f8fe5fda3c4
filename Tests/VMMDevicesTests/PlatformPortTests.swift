import Testing
import VMMBase
import VMMTestSupport

@testable import VMMDevices

@Suite("I8042")
struct I8042Tests {
    @Test("only 0xfe at the command port resets")
    func resets() {
        let resets = Counter()
        let chip = I8042 { resets.increment() }
        chip.write(offset: 0, width: .byte, value: 0xfe)
        chip.write(offset: 3, width: .byte, value: 0xfd)
        #expect(resets.value == 0)
        chip.write(offset: 3, width: .byte, value: 0xfe)
        #expect(resets.value == 1)
    }

    @Test("the status never empties, so a probe gives up, and never blocks a command")
    func status() {
        let chip = I8042 {}
        #expect(chip.read(offset: 3, width: .byte) & 0x03 == 0x01)
        #expect(chip.read(offset: 0, width: .byte) == 0x20)
        #expect(chip.read(offset: 1, width: .byte) == 0xff)
    }
}

@Suite("ACPIPowerRegisters")
struct ACPIPowerRegistersTests {
    @Test("1 resets, sleep type 5 with the enable bit powers off, and nothing else does")
    func values() {
        let (resets, powerOffs) = (Counter(), Counter())
        let chip = ACPIPowerRegisters(
            reset: { resets.increment() }, powerOff: { powerOffs.increment() })
        for value in UInt64(0)...255 { chip.write(offset: 0, width: .byte, value: value) }
        for offset in UInt64(1)..<8 { chip.write(offset: offset, width: .byte, value: 1) }
        #expect(resets.value == 1)
        #expect(powerOffs.value == 1)
        #expect(chip.read(offset: 0, width: .doubleWord) == 0)
    }
}

@Suite("ACPITimer")
struct ACPITimerTests {
    @Test("it counts 3,579,545 a second from its start")
    func frequency() {
        let clock = ManualClock(monotonic: 77)
        let timer = ACPITimer(clock: clock)
        clock.advance(nanoseconds: 1_000_000_000)
        #expect(timer.read(offset: 0, width: .doubleWord) == 3_579_545)
    }

    @Test("it wraps at 32 bits, and no uptime overflows it")
    func wraps() {
        let clock = ManualClock()
        let timer = ACPITimer(clock: clock)
        // 1200 s are 4,295,454,000 ticks: 486,704 beyond 2^32.
        clock.advance(nanoseconds: 1_200_000_000_000)
        #expect(timer.read(offset: 0, width: .doubleWord) == 486_704)
        clock.advance(nanoseconds: .max - 1_200_000_000_000)
        _ = timer.read(offset: 0, width: .quadWord)
    }

    @Test("its bytes can be read one by one")
    func bytes() {
        let clock = ManualClock()
        let timer = ACPITimer(clock: clock)
        clock.advance(nanoseconds: 1_000_000_000)
        let bytes = (UInt64(0)..<4).map { timer.read(offset: $0, width: .byte) }
        #expect(bytes == [0x99, 0x9e, 0x36, 0x00])
    }
}

@Suite("GenericEventDevice")
struct GenericEventDeviceTests {
    @Test("events hold the line until they are read, and are read once")
    func readClears() {
        let line = RecordingLine()
        let device = GenericEventDevice(line: line)
        device.notify(.powerButton)
        device.notify([.processors, .memory])
        #expect(line.isHigh)
        #expect(device.read(offset: 0, width: .byte) == 0x0b)
        #expect(!line.isHigh)
        #expect(device.read(offset: 0, width: .byte) == 0)
        #expect(line.riseCount == 1)
    }

    @Test("reset forgets events")
    func reset() {
        let line = RecordingLine()
        let device = GenericEventDevice(line: line)
        device.notify(.pci)
        device.reset()
        #expect(!line.isHigh)
        #expect(device.read(offset: 0, width: .byte) == 0)
    }
}

@Suite("DebugPorts")
struct DebugPortsTests {
    @Test(
        "a code is logged with its stage and the time",
        arguments: [
            (UInt8(0x01), "[Debug I/O port: Firmware code 0x01] 1.000042 seconds"),
            (0x20, "[Debug I/O port: Bootloader code 0x20] 1.000042 seconds"),
            (0x41, "[Debug I/O port: Kernel code 0x41] 1.000042 seconds"),
            (0x7f, "[Debug I/O port: Userspace code 0x7f] 1.000042 seconds"),
            (0xff, "[Debug I/O port: Custom code 0xff] 1.000042 seconds"),
        ])
    func line(code: UInt8, expected: String) {
        #expect(DebugPort.line(code, microseconds: 1_000_042) == expected)
    }

    @Test("the debug console sends bytes and answers with its signature")
    func console() {
        let channel = RecordingChannel()
        let console = DebugConsole(channel: channel)
        console.write(offset: 0, width: .byte, value: 0x41)
        console.write(offset: 0, width: .doubleWord, value: 0x1_0042)
        #expect(channel.sent == [0x41, 0x42])
        #expect(console.read(offset: 0, width: .byte) == 0xe9)
    }
}
