import Synchronization
import Testing
import VMMBase
import VMMBus
import VMMHost
import VMMTestSupport

@testable import VMMDevices

@Suite("UART16550")
struct UART16550Tests {
    let line = RecordingLine()
    let channel = RecordingChannel()
    let port: UART16550

    init() {
        port = UART16550(line: line, channel: channel)
    }

    private func read(_ register: UInt64) -> UInt64 { port.read(offset: register, width: .byte) }
    private func write(_ register: UInt64, _ value: UInt64) {
        port.write(offset: register, width: .byte, value: value)
    }

    @Test("bytes written to the data register reach the channel in order")
    func transmits() {
        write(0, 0x68)
        write(0, 0x69)
        #expect(channel.sent == [0x68, 0x69])
    }

    @Test("the driver's probe finds a 16550A: both FIFO bits, and no 64-byte FIFO")
    func detectedAs16550A() {
        write(2, 1)
        #expect(read(2) >> 5 == 6)
        write(3, 0x80)
        write(2, 0x21)
        write(3, 0)
        #expect(read(2) >> 5 == 6)
    }

    @Test("interrupt enable keeps its four bits, scratch keeps all")
    func probeRegisters() {
        write(1, 0xff)
        write(7, 0xa5)
        #expect(read(1) == 0x0f)
        #expect(read(7) == 0xa5)
    }

    @Test("the divisor shows only while its latch is open")
    func divisorLatch() {
        write(3, 0x83)
        write(0, 0x34)
        write(1, 0x12)
        #expect([read(0), read(1)] == [0x34, 0x12])
        write(3, 0x03)
        #expect(read(1) == 0)
        #expect(channel.sent.isEmpty)
    }

    @Test("loopback turns modem outputs into inputs, as the driver's probe expects")
    func loopbackModem() {
        write(4, 0x1a)
        #expect(read(6) & 0xf0 == 0x90)
    }

    @Test("loopback returns bytes and sends none")
    func loopbackData() {
        write(4, 0x10)
        write(0, 0x55)
        #expect(read(5) & 1 == 1)
        #expect(read(0) == 0x55)
        #expect(read(5) & 1 == 0)
        #expect(channel.sent.isEmpty)
    }

    @Test("loopback that nobody reads overruns instead of growing")
    func loopbackOverrun() {
        write(4, 0x10)
        for _ in 0..<17 { write(0, 1) }
        #expect(read(5) & 2 == 2)
        #expect(read(5) & 2 == 0)
    }

    @Test("enabling the transmitter interrupt raises it at once, and each time anew")
    func transmitterInterruptOnEnable() {
        write(1, 2)
        #expect(line.isHigh)
        #expect(read(2) & 0x0f == 0x02)
        #expect(!line.isHigh)
        #expect(read(2) & 0x0f == 0x01)
        write(1, 0)
        write(1, 2)
        #expect(line.riseCount == 2)
    }

    @Test("a byte sent after the acknowledgement raises the transmitter interrupt again")
    func transmitterInterruptAfterSend() {
        write(1, 2)
        _ = read(2)
        write(0, 0x41)
        #expect(line.riseCount == 2)
        #expect(read(2) & 0x0f == 0x02)
    }

    @Test("input raises the receiver interrupt until it is read")
    func receives() {
        write(1, 1)
        port.receive([1, 2])
        #expect(line.isHigh)
        #expect(read(2) & 0x0f == 0x04)
        #expect([read(0), read(0)] == [1, 2])
        #expect(!line.isHigh)
        #expect(read(5) == 0x60)
        #expect(line.riseCount == 1)
    }

    @Test("input below the trigger level shows as a timeout")
    func receiveTimeout() {
        write(2, 0xc1)
        write(1, 1)
        port.receive([1])
        #expect(read(2) & 0x0f == 0x0c)
        port.receive(Array(repeating: 2, count: 13))
        #expect(read(2) & 0x0f == 0x04)
    }

    @Test("received data comes before the transmitter, whose interrupt is not lost")
    func priority() {
        write(1, 3)
        port.receive([7])
        #expect(read(2) & 0x0f == 0x04)
        _ = read(0)
        #expect(read(2) & 0x0f == 0x02)
        #expect(read(2) & 0x0f == 0x01)
    }

    @Test("input that came before the driver interrupts when it is enabled")
    func inputBeforeDriver() {
        port.receive([9])
        #expect(!line.isHigh)
        write(1, 1)
        #expect(line.isHigh)
    }

    @Test("input beyond the threshold pauses the channel until the guest has read")
    func backPressure() {
        port.receive(Array(repeating: 1, count: 4096))
        #expect(channel.pauses == [true])
        for _ in 0..<4096 { _ = read(0) }
        #expect(channel.pauses == [true, false])
    }

    /// A line that another vCPU moves each time that it has been moved, for a while.
    private final class RestlessLine: InterruptLine {
        private let state = Mutex<(port: UART16550?, calls: Int)>((nil, 0))
        var calls: Int { state.withLock { $0.calls } }
        func connect(_ port: UART16550?) { state.withLock { $0.port = port } }

        func set(_ level: Bool) {
            let (port, calls) = state.withLock { state in
                state.calls += 1
                return (state.port, state.calls)
            }
            if calls < 1000 { port?.write(offset: 1, width: .byte, value: level ? 0 : 2) }
        }
    }

    @Test("vCPUs that move the line without end do not keep the loop")
    func restlessLine() throws {
        let line = RestlessLine()
        let loop = try EventLoop()
        let port = UART16550(line: line, channel: channel, loop: loop)
        line.connect(port)
        port.write(offset: 1, width: .byte, value: 2)
        let first = line.calls
        // One batch of posted work at a time.
        loop.post { loop.stop() }
        try loop.run()
        let afterTheEnd = line.calls

        #expect(first < 100)
        #expect(afterTheEnd == 1000)
        line.connect(nil)
    }

    @Test("a channel that ignores the pause loses bytes, and the port reports an overrun")
    func inputLimit() {
        for _ in 0..<8 { port.receive(Array(repeating: 1, count: 4096)) }
        #expect(read(5) & 2 == 2)
        var count = 0
        while read(5) & 1 == 1 {
            _ = read(0)
            count += 1
        }
        #expect(count == 16 << 10)
    }

    @Test("a lone line feed from the host arrives as a carriage return")
    func lineFeed() {
        port.receive([0x0a])
        port.receive([0x41, 0x0a])
        #expect([read(0), read(0), read(0)] == [0x0d, 0x41, 0x0a])
    }

    @Test("clearing the receiver drops what was in the chip")
    func clearFIFO() {
        port.receive(Array(0..<20))
        write(2, 7)
        #expect(read(0) == 16)
    }

    @Test("a change of the modem lines interrupts once")
    func modemStatus() {
        write(1, 8)
        write(4, 0x10)
        #expect(line.isHigh)
        #expect(read(2) & 0x0f == 0x00)
        #expect(read(6) & 0x0f != 0)
        #expect(!line.isHigh)
    }

    @Test("reset lowers the line, drops input and lets the channel go on")
    func reset() {
        write(1, 1)
        port.receive(Array(repeating: 1, count: 300))
        port.reset()
        #expect(!line.isHigh)
        #expect(read(5) == 0x60)
        #expect(read(1) == 0)
        #expect(channel.pauses == [true, false])
    }

    @Test("wide accesses reach the first register and trap nothing")
    func wideAccess() {
        for width in AccessWidth.allCases {
            for register in UInt64(0)..<8 {
                port.write(offset: register, width: width, value: .max)
                _ = port.read(offset: register, width: width)
            }
        }
        #expect(port.read(offset: 7, width: .quadWord) == 0xff)
    }
}
