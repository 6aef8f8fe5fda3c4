import Testing
import VMMTestSupport

@testable import VMMDevices

@Suite("VsockCredit")
struct VsockCreditTests {
    @Test("the guest may send what the buffer holds, and again what has left it")
    func receiving() {
        var credit = VsockCredit(window: 100)
        let first = [credit.receive(60), credit.receive(41), credit.receive(40), credit.receive(1)]
        credit.forward(10)
        let second = [credit.receive(11), credit.receive(10), credit.receive(0)]
        #expect(first == [true, false, true, false])
        #expect(second == [false, true, true])
    }

    @Test("the guest is told at half a buffer, once")
    func telling() {
        var credit = VsockCredit(window: 100)
        _ = credit.receive(100)
        credit.forward(49)
        let early = credit.shouldTell
        credit.forward(1)
        let due = credit.shouldTell
        let told = credit.tell()
        #expect(!early && due && told == 50)
        #expect(!credit.shouldTell)
    }

    @Test("the host sends what the guest has room for")
    func sending() {
        var credit = VsockCredit(window: 0)
        #expect(credit.room == 0)
        var isNews = [credit.learn(window: 100, forwarded: 0)]
        credit.send(70)
        #expect(credit.room == 30)
        isNews.append(credit.learn(window: 100, forwarded: 0))
        isNews.append(credit.learn(window: 100, forwarded: 70))
        #expect(isNews == [true, false, true])
        #expect(credit.room == 100)
    }

    @Test("lies give no room", arguments: [(10, 0), (100, 71), (100, 200), (0, 0)])
    func lies(window: UInt32, forwarded: UInt32) {
        var credit = VsockCredit(window: 0)
        _ = credit.learn(window: 100, forwarded: 0)
        credit.send(70)
        _ = credit.learn(window: window, forwarded: forwarded)
        #expect(credit.room == 0)
    }

    @Test("counts go on beyond 2^32")
    func wrapping() {
        var credit = VsockCredit(window: .max)
        let isTaken = credit.receive(.max)
        credit.forward(Int(UInt32.max))
        credit.send(Int(UInt32.max))
        _ = credit.learn(window: 10, forwarded: .max)
        credit.send(4)
        let isTakenAgain = credit.receive(10)
        #expect(isTaken && isTakenAgain && credit.received == 9)
        #expect(credit.room == 6)
    }
}
