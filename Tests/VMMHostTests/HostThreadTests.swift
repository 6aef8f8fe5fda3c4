import Glibc
import Synchronization
import Testing
import VMMHost

@Suite("HostThread")
struct HostThreadTests {
    /// What a thread says about itself.
    private final class Report: Sendable {
        private let thread = Mutex<pthread_t?>(nil)

        func record() { thread.withLock { $0 = pthread_self() } }
        var recorded: pthread_t? { thread.withLock { $0 } }
    }

    @Test("join waits for the body, which ran on a thread of its own, and again returns at once")
    func join() throws {
        let report = Report()
        let gate = try EventFD()
        let thread = try HostThread(name: "a name of more than 15 bytes", role: .tool) {
            _ = gate.descriptor.isReady(.readable, waitingMilliseconds: 10_000)
            report.record()
        }
        let before = report.recorded
        gate.signal()
        thread.join()
        thread.join()
        #expect(before == nil)
        #expect(report.recorded != nil && report.recorded != pthread_self())
    }
}
