import Testing
import VMMTestSupport

@testable import VMMBase

@Suite("LogLimiter")
struct LogLimiterTests {
    @Test("a burst of lines goes through, then none until the window is over")
    func windows() {
        let clock = ManualClock()
        clock.advance(nanoseconds: 5_000_000_000)
        let limiter = LogLimiter(clock: clock)
        func count(_ lines: Int) -> Int { (0..<lines).count { _ in limiter.admitsLine() } }

        #expect(count(100_000) == 10)
        clock.advance(nanoseconds: 4_999_999_999)
        #expect(count(100) == 0)
        clock.advance(nanoseconds: 1)
        #expect(count(3) == 3)
        #expect(count(100) == 7)
    }

    @Test("a limiter of one's own leaves another's lines alone")
    func sources() {
        let clock = ManualClock()
        let (noisy, other) = (
            LogLimiter(clock: clock, burst: 1), LogLimiter(clock: clock, burst: 1)
        )
        for _ in 0..<100 { _ = noisy.admitsLine() }
        #expect(other.admitsLine())
    }
}
