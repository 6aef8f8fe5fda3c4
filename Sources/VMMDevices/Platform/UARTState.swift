/// The registers and buffers of a `UART16550`, without threads (PC16550D, section 8).
struct UARTState {
    private enum Register {
        static let data: UInt8 = 0
        static let interruptEnable: UInt8 = 1
        static let interruptOrFIFO: UInt8 = 2
        static let lineControl: UInt8 = 3
        static let modemControl: UInt8 = 4
        static let lineStatus: UInt8 = 5
        static let modemStatus: UInt8 = 6
        static let scratch: UInt8 = 7
    }

    private enum InterruptEnable {
        static let received: UInt8 = 1
        static let transmitterEmpty: UInt8 = 2
        static let lineStatus: UInt8 = 4
        static let modemStatus: UInt8 = 8
        static let all: UInt8 = 0x0f
    }

    private enum LineStatus {
        static let dataReady: UInt8 = 1
        static let overrun: UInt8 = 2
        /// The transmitter's holding and shift registers are empty.
        static let transmitterEmpty: UInt8 = 0x60
    }

    private enum ModemControl {
        static let loopback: UInt8 = 0x10
        static let all: UInt8 = 0x1f
    }

    /// Interrupt causes as the identification register shows them, the most urgent first.
    enum Cause: UInt8 {
        case lineStatus = 0x06
        case received = 0x04
        case receiveTimeout = 0x0c
        case transmitterEmpty = 0x02
        case modemStatus = 0x00
    }

    private static let noCause: UInt8 = 1
    private static let fifosEnabled: UInt8 = 0xc0
    private static let divisorLatch: UInt8 = 0x80
    /// Clear to send, data set ready and carrier: a terminal that is always there.
    private static let connectedModem: UInt8 = 0xb0
    private static let fifoDepth = 16
    /// Host bytes that wait beyond the chip's own FIFO. Above `pauseThreshold` the channel pauses,
    /// and delivers at most 4096 bytes more; the rest of the room is slack.
    private static let inputLimit = 16 << 10
    private static let pauseThreshold = 256

    private var interruptEnable: UInt8 = 0
    private var fifoControl: UInt8 = 0
    private var lineControl: UInt8 = 0x03
    private var modemControl: UInt8 = 0x08
    private var scratch: UInt8 = 0
    /// 12: 9600 baud, from which nothing follows here.
    private var divisor: UInt16 = 12
    private var transmitterEmptyPending = false
    private var overrun = false
    private var modemChanges: UInt8 = 0
    private var input: [UInt8] = []
    private var firstInput = 0
    /// What loopback mode sent to itself.
    private var loop: [UInt8] = []
    var pause = InputPause()
    var line = LineLevel()

    private var isLoopback: Bool { modemControl & ModemControl.loopback != 0 }
    private var usesFIFO: Bool { fifoControl & 1 != 0 }

    /// How many bytes wait for the guest to read them.
    private var waiting: Int { isLoopback ? loop.count : input.count - firstInput }

    /// Bytes in the receiver from which on it interrupts without waiting.
    private var trigger: Int {
        guard usesFIFO else { return 1 }
        switch fifoControl >> 6 {
        case 0: return 1
        case 1: return 4
        case 2: return 8
        default: return 14
        }
    }

    /// The most urgent interrupt cause that is enabled.
    var cause: Cause? {
        func isEnabled(_ bit: UInt8) -> Bool { interruptEnable & bit != 0 }
        if isEnabled(InterruptEnable.lineStatus), overrun { return .lineStatus }
        if isEnabled(InterruptEnable.received), waiting > 0 {
            // No time passes on this line: what has not reached the trigger has timed out.
            return waiting >= trigger ? .received : .receiveTimeout
        }
        if isEnabled(InterruptEnable.transmitterEmpty), transmitterEmptyPending {
            return .transmitterEmpty
        }
        if isEnabled(InterruptEnable.modemStatus), modemChanges != 0 { return .modemStatus }
        return nil
    }

    // MARK: the guest

    mutating func read(_ register: UInt8) -> UInt8 {
        let hasDivisor = lineControl & Self.divisorLatch != 0
        switch register {
        case Register.data where hasDivisor: return UInt8(truncatingIfNeeded: divisor)
        case Register.interruptEnable where hasDivisor:
            return UInt8(truncatingIfNeeded: divisor >> 8)
        case Register.data: return takeInput()
        case Register.interruptEnable: return interruptEnable
        case Register.interruptOrFIFO: return identifyInterrupt()
        case Register.lineControl: return lineControl
        case Register.modemControl: return modemControl
        case Register.lineStatus: return takeLineStatus()
        case Register.modemStatus: return takeModemStatus()
        case Register.scratch: return scratch
        default: return 0xff
        }
    }

    /// Returns the byte that leaves the port, if any.
    mutating func write(_ register: UInt8, _ value: UInt8) -> UInt8? {
        let hasDivisor = lineControl & Self.divisorLatch != 0
        switch register {
        case Register.data where hasDivisor: divisor = divisor & 0xff00 | UInt16(value)
        case Register.interruptEnable where hasDivisor:
            divisor = divisor & 0x00ff | UInt16(value) << 8
        case Register.data: return transmit(value)
        case Register.interruptEnable: enableInterrupts(value)
        case Register.interruptOrFIFO: controlFIFO(value)
        case Register.lineControl: lineControl = value
        case Register.modemControl: controlModem(value)
        case Register.scratch: scratch = value
        default: break
        }
        return nil
    }

    private mutating func transmit(_ value: UInt8) -> UInt8? {
        // Sent at once, so the transmitter is empty again, which is a new cause.
        transmitterEmptyPending = true
        guard isLoopback else { return value }
        if loop.count < Self.fifoDepth { loop.append(value) } else { overrun = true }
        return nil
    }

    private mutating func takeInput() -> UInt8 {
        if isLoopback { return loop.isEmpty ? 0 : loop.removeFirst() }
        guard firstInput < input.count else { return 0 }
        defer {
            firstInput += 1
            if firstInput == input.count {
                input.removeAll(keepingCapacity: true)
                firstInput = 0
            }
        }
        return input[firstInput]
    }

    private mutating func enableInterrupts(_ value: UInt8) {
        let added = value & ~interruptEnable
        interruptEnable = value & InterruptEnable.all
        // Enabling it with an empty transmitter interrupts at once; drivers probe for that.
        if added & InterruptEnable.transmitterEmpty != 0 { transmitterEmptyPending = true }
    }

    private mutating func identifyInterrupt() -> UInt8 {
        let cause = self.cause
        if cause == .transmitterEmpty { transmitterEmptyPending = false }
        return (cause?.rawValue ?? Self.noCause) | (usesFIFO ? Self.fifosEnabled : 0)
    }

    private mutating func controlFIFO(_ value: UInt8) {
        let togglesFIFO = (value ^ fifoControl) & 1 != 0
        // Without bit 0 the other bits are not taken over (8.4).
        fifoControl = value & 1 != 0 ? value & 0xc9 : 0
        // Bit 1 clears the receiver. Bytes that wait outside the chip have not reached it yet.
        guard value & 2 != 0 || togglesFIFO else { return }
        loop.removeAll()
        if value & 2 != 0, !isLoopback {
            firstInput = min(input.count, firstInput + Self.fifoDepth)
            compact()
        }
    }

    private mutating func controlModem(_ value: UInt8) {
        let before = modemLines
        modemControl = value & ModemControl.all
        if !isLoopback { loop.removeAll() }
        let changed = before ^ modemLines
        // Bits 4, 5 and 7 report any change, the ring indicator (6) only its end.
        modemChanges |= (changed & 0xb0) >> 4 | (changed & before & 0x40) >> 4
    }

    /// The four modem inputs; in loopback the four modem outputs.
    private var modemLines: UInt8 {
        guard isLoopback else { return Self.connectedModem }
        let dataTerminalReady = modemControl & 1
        let requestToSend = modemControl >> 1 & 1
        let outputs = modemControl >> 2 & 3
        return requestToSend << 4 | dataTerminalReady << 5 | outputs << 6
    }

    private mutating func takeLineStatus() -> UInt8 {
        defer { overrun = false }
        return LineStatus.transmitterEmpty | (waiting > 0 ? LineStatus.dataReady : 0)
            | (overrun ? LineStatus.overrun : 0)
    }

    private mutating func takeModemStatus() -> UInt8 {
        defer { modemChanges = 0 }
        return modemLines | modemChanges
    }

    // MARK: the host

    mutating func enqueue(_ bytes: [UInt8]) {
        compact()
        let room = Self.inputLimit - input.count
        input.append(contentsOf: bytes.prefix(max(0, room)))
        if bytes.count > room { overrun = true }
    }

    private mutating func compact() {
        input.removeFirst(firstInput)
        firstInput = 0
    }

    /// Decides what the line and the channel's input shall be after a change.
    mutating func settle() {
        line.set(cause != nil)
        pause.set(input.count - firstInput > Self.pauseThreshold)
    }

    /// Power-on values. The line and the pause go on from where they are.
    mutating func reset() {
        let (line, pause) = (self.line, self.pause)
        self = UARTState()
        self.line = line
        self.pause = pause
    }
}
