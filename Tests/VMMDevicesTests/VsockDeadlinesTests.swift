import Testing

@testable import VMMDevices

@Suite("VsockDeadlines")
struct VsockDeadlinesTests {
    @Test("waits end in the order of their ends, each after its own time")
    func order() {
        var deadlines = VsockDeadlines()
        deadlines.start(.greeting, 0, now: 100)
        deadlines.start(.close, 7, now: 100)
        deadlines.start(.retry, 3, now: 100)
        #expect(deadlines.next == 10_000_100)
        let early = deadlines.takeEnded(now: 10_000_099)
        #expect(early == nil)
        let first = deadlines.takeEnded(now: 10_000_100)
        #expect(first?.wait == .retry && first?.slot == 3)
        #expect(deadlines.next == 2_000_000_100)
    }

    @Test("a slot waits for one thing at a time, and can stop")
    func replacement() {
        var deadlines = VsockDeadlines()
        deadlines.start(.retry, 1, now: 0)
        deadlines.start(.request, 1, now: 0)
        #expect(deadlines.next == 60_000_000_000)
        deadlines.stop(1)
        deadlines.stop(99)
        #expect(deadlines.next == nil)
        let ended = deadlines.takeEnded(now: .max)
        #expect(ended == nil)
    }
}
