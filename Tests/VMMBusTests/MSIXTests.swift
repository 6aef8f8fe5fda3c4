import Synchronization
import Testing
import VMMBase
import VMMBus

private final class RecordingInterrupt: MessageInterrupt {
    let log = Mutex<[String]>([])
    /// Called while a route is on its way, as another thread could.
    let duringRoute = Mutex<(@Sendable () -> Void)?>(nil)

    func route(_ message: InterruptMessage?) {
        let text = message.map { "route \(String($0.address, radix: 16)) \($0.data)" } ?? "unroute"
        duringRoute.withLock { $0 }?()
        log.withLock { $0.append(text) }
    }
    func signal() { log.withLock { $0.append("signal") } }
    func release() { log.withLock { $0.append("release") } }
    var entries: [String] { log.withLock { $0 } }
}

private final class RecordingSource: MessageInterruptSource {
    let made = Mutex<[RecordingInterrupt]>([])

    func makeMessageInterrupt() -> any MessageInterrupt {
        let interrupt = RecordingInterrupt()
        made.withLock { $0.append(interrupt) }
        return interrupt
    }
    func entries(_ vector: Int) -> [String] { made.withLock { $0[vector] }.entries }
}

@Suite("MSIX")
struct MSIXTests {
    private let source = RecordingSource()
    private let msix: MSIX

    init() {
        msix = MSIX(vectorCount: 2, source: source)
    }

    /// Programs vector 1 as a driver does: address, data, then unmask.
    private func program(masked: Bool) {
        msix.writeTable(offset: 16, width: .quadWord, value: 0xfee0_0000)
        msix.writeTable(offset: 24, width: .doubleWord, value: 41)
        msix.writeTable(offset: 28, width: .doubleWord, value: masked ? 1 : 0)
    }

    @Test("a programmed vector is routed once and signalled")
    func signal() {
        program(masked: false)
        msix.setControl(enabled: true, functionMasked: false)

        msix.signal(1)
        msix.setControl(enabled: true, functionMasked: false)

        #expect(source.entries(1) == ["route fee00000 41", "signal"])
        #expect(source.entries(0).isEmpty)
    }

    @Test("an interrupt of a masked vector is pending until it is unmasked")
    func pending() {
        program(masked: true)
        msix.setControl(enabled: true, functionMasked: false)

        msix.signal(1)
        let pendingBits = msix.readPending(offset: 0, width: .quadWord)
        msix.writeTable(offset: 28, width: .doubleWord, value: 0)

        #expect(pendingBits == 0b10)
        #expect(source.entries(1) == ["route fee00000 41", "signal"])
        #expect(msix.readPending(offset: 0, width: .quadWord) == 0)
    }

    @Test("an interrupt that comes while its route is on the way follows it")
    func signalDuringRoute() {
        let vector = source.made.withLock { $0[1] }
        vector.duringRoute.withLock { $0 = { [msix] in msix.signal(1) } }
        program(masked: false)

        msix.setControl(enabled: true, functionMasked: false)

        #expect(source.entries(1) == ["route fee00000 41", "signal"])
    }

    @Test("a message that changes while its route is on the way is routed next")
    func changeDuringRoute() {
        let vector = source.made.withLock { $0[1] }
        vector.duringRoute.withLock {
            $0 = { [msix] in msix.writeTable(offset: 24, width: .doubleWord, value: 42) }
        }
        program(masked: false)

        msix.setControl(enabled: true, functionMasked: false)

        #expect(source.entries(1) == ["route fee00000 41", "route fee00000 42"])
    }

    @Test("the function mask holds back every vector")
    func functionMask() {
        program(masked: false)
        msix.setControl(enabled: true, functionMasked: true)

        msix.signal(1)
        msix.setControl(enabled: true, functionMasked: false)

        #expect(source.entries(1) == ["route fee00000 41", "signal"])
    }

    @Test("a disabled function and a vector that does not exist send nothing")
    func nothingSent() {
        program(masked: false)

        msix.signal(1)
        msix.signal(7)
        msix.signal(MSIX.noVector)

        #expect(source.entries(1).isEmpty)
    }

    @Test("accesses outside the table and of odd widths change nothing and do not trap")
    func oddAccesses() {
        msix.writeTable(offset: 1 << 40, width: .doubleWord, value: 1)
        msix.writeTable(offset: 17, width: .byte, value: 1)
        msix.writeTable(offset: 18, width: .doubleWord, value: 1)

        #expect(msix.readTable(offset: 16, width: .quadWord) == 0)
        #expect(msix.readTable(offset: 1 << 40, width: .word) == 0xffff)
        #expect(msix.readPending(offset: .max, width: .byte) == 0)
    }
}
