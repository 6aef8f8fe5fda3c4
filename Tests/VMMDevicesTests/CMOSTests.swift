import Testing
import VMMBase
import VMMTestSupport

@testable import VMMDevices

@Suite("CMOS")
struct CMOSTests {
    let clock = ManualClock()
    let resets = Counter()

    private func makeChip(below: UInt64 = 0, above: UInt64 = 0) -> CMOS {
        CMOS(clock: clock, memoryBelow4G: below, memoryAbove4G: above) { [resets] in
            resets.increment()
        }
    }

    private func read(_ chip: CMOS, _ index: UInt64) -> UInt64 {
        chip.write(offset: 0, width: .byte, value: index)
        return chip.read(offset: 1, width: .byte)
    }

    /// Century, year, month, day, hours, minutes, seconds, weekday.
    private func time(_ chip: CMOS) -> [UInt64] {
        [0x32, 9, 8, 7, 4, 2, 0, 6].map { read(chip, $0) }
    }

    /// A moment, and its registers: century, year, month, day, hours, minutes, seconds, weekday.
    struct Moment: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let seconds: UInt64
        let registers: [UInt64]

        init(_ name: String, _ seconds: UInt64, _ registers: [UInt64]) {
            testDescription = name
            self.seconds = seconds
            self.registers = registers
        }
    }

    /// Seconds from `date -u -d ... +%s`; weekdays count from Sunday, 1.
    static let moments = [
        Moment(
            "the epoch", 0, [0x19, 0x70, 0x01, 0x01, 0x00, 0x00, 0x00, 5]),
        Moment(
            "a leap day in a leap century", 951_782_400,
            [0x20, 0x00, 0x02, 0x29, 0x00, 0x00, 0x00, 3]),
        Moment(
            "before a leap day", 1_709_164_799, [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x59, 4]),
        Moment(
            "the end of a leap day", 1_709_251_199, [0x20, 0x24, 0x02, 0x29, 0x23, 0x59, 0x59, 5]),
        Moment(
            "the end of a year", 1_735_689_599, [0x20, 0x24, 0x12, 0x31, 0x23, 0x59, 0x59, 3]),
        Moment(
            "the start of a year", 1_735_689_600, [0x20, 0x25, 0x01, 0x01, 0x00, 0x00, 0x00, 4]),
        Moment(
            "beyond 32 bits", 2_147_483_648, [0x20, 0x38, 0x01, 0x19, 0x03, 0x14, 0x08, 3]),
        Moment(
            "before 1 March 2100", 4_107_542_399, [0x21, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59, 1]),
        Moment(
            "no leap day in 2100", 4_107_542_400, [0x21, 0x00, 0x03, 0x01, 0x00, 0x00, 0x00, 2]),
    ]

    @Test("dates come out in BCD, leap years and centuries included", arguments: moments)
    func calendar(moment: Moment) {
        clock.setRealtime(seconds: moment.seconds)
        #expect(time(makeChip()) == moment.registers)
    }

    @Test("the status registers tell of a running clock in 24-hour BCD with a good battery")
    func status() {
        let chip = makeChip()
        #expect([0x0a, 0x0b, 0x0c, 0x0d].map { read(chip, $0) } == [0x26, 0x02, 0, 0x80])
    }

    @Test("an update is announced in the last 244 microseconds of a second, and then is over")
    func updateInProgress() {
        let chip = makeChip()
        clock.advance(nanoseconds: 999_755_999)
        #expect(read(chip, 0x0a) & 0x80 == 0)
        clock.advance(nanoseconds: 1)
        #expect(read(chip, 0x0a) & 0x80 != 0)
        clock.advance(nanoseconds: 244_000)
        #expect(read(chip, 0x0a) & 0x80 == 0)
    }

    @Test("memory sizes are given in units of 64 KiB")
    func memorySizes() {
        let chip = makeChip(below: 0x2100_0000, above: 0x1_2345_0000)
        #expect([0x34, 0x35].map { read(chip, $0) } == [0x00, 0x20])
        #expect([0x5b, 0x5c, 0x5d].map { read(chip, $0) } == [0x45, 0x23, 0x01])
    }

    @Test("sizes beyond the registers are shown as the most they hold, and small ones as none")
    func extremeSizes() {
        let large = makeChip(below: .max, above: .max)
        let registers = [0x34, 0x35, 0x5b, 0x5c, 0x5d].map { read(large, $0) }
        #expect(registers == Array(repeating: 0xff, count: 5))
        #expect(read(makeChip(below: 1 << 20), 0x34) == 0)
    }

    @Test("only a zero in the shutdown byte with NMI off resets")
    func shutdownByte() {
        let chip = makeChip()
        chip.write(offset: 0, width: .byte, value: 0x0f)
        chip.write(offset: 1, width: .byte, value: 0)
        chip.write(offset: 0, width: .byte, value: 0x8f)
        chip.write(offset: 1, width: .byte, value: 5)
        #expect(resets.value == 0)
        chip.write(offset: 1, width: .byte, value: 0)
        #expect(resets.value == 1)
    }

    @Test("plain memory keeps what is written, at every index, with or without the NMI bit")
    func storage() {
        let chip = makeChip()
        for index in UInt64(0)..<256 {
            chip.write(offset: 0, width: .quadWord, value: index)
            chip.write(offset: 1, width: .quadWord, value: 0x1_5a)
        }
        #expect(read(chip, 0x40) == 0x5a)
        #expect(read(chip, 0xc0) == 0x5a)
        #expect(chip.read(offset: 0, width: .byte) == 0xff)
    }
}
