import Foundation
import Testing

/// Nothing sleeps or polls on the way from exec to the guest (DESIGN section 5).
@Suite("Start-up", .guest)
struct StartUpTests {
    private static var sleeps: some RegexComponent {
        /\b(clock_nanosleep|nanosleep|alarm|setitimer|timerfd_\w+)\(/
    }
    private static var polls: some RegexComponent {
        /\b(poll|ppoll|select|pselect6)\(/
    }
    /// An epoll_wait that would come back by itself; -1 waits for an event.
    private static var timeouts: some RegexComponent {
        /\bepoll_p?wait\(.*, (?!-1)-?\d+(, NULL, \d+)?\)/
    }

    @Test("nothing sleeps, polls or sets a timer from exec to the end of a guest")
    func waitsForEventsOnly() throws {
        let scratch = try Scratch()
        let disk = try scratch.file("disk", Data(count: 1 << 20))
        var boot = Boot("dd if=/dev/vda of=/dev/null bs=64k count=4 2>/dev/null || fail read")
        boot.options = ["--disk", "path=\(disk),image_type=raw", "--net", "tap=swl-strace"]
        let trace = scratch("trace")
        let words = try ["strace", "-f", "-qq", "-o", trace] + boot.arguments(scratch)

        let guest = try Guest(words, in: scratch)
        try guest.finish(within: 2 * Guest.patience)

        let calls = try String(contentsOfFile: trace, encoding: .utf8)
            .split(separator: "\n").map(String.init)
        let start = calls.prefix { !$0.contains("KVM_RUN") }
        #expect(start.count > 50 && start.count < calls.count, "the trace has a start and a run")
        #expect(start.filter { $0.contains(Self.polls) } == [])
        #expect(calls.filter { $0.contains(Self.sleeps) } == [])
        #expect(calls.filter { $0.contains(Self.timeouts) } == [])
    }
}
