import Glibc
import Testing

@testable import VMMHost

@Suite("ProcessSignals")
struct ProcessSignalsTests {
    @Test(
        "errors of one call do not end the process: a lost peer, a file at its limit, a terminal",
        arguments: [SIGPIPE, SIGXFSZ, SIGTTIN])
    func ignored(signal: Int32) {
        ProcessSignals.ignoreBrokenPipes()
        var action = sigaction()
        #expect(sigaction(signal, nil, &action) == 0)
        // SIG_IGN is 1 (signal(7) of Linux).
        #expect(unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1)
    }
}
