import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@Suite("LogSink")
struct LogSinkTests {
    @Test("a reader who stands still costs lines, which are counted, and nobody's time")
    func standingReader() throws {
        let (near, far) = try UnixSocket.streamPair()
        let sink = LogSink(descriptor: near, program: "test", clock: ManualClock())
        let began = ContinuousClock.now
        // Ten times what a socket holds.
        let line = String(repeating: "x", count: 1000)
        for _ in 0..<5000 { sink.write(.warning, line) }
        let took = ContinuousClock.now - began
        var text: [UInt8] = []
        while case .moved = far.receive(into: &text, limit: 1 << 16, isPeek: false) {}
        sink.write(.warning, "the last word")
        var rest: [UInt8] = []
        while case .moved = far.receive(into: &rest, limit: 1 << 16, isPeek: false) {}

        // A quarter of a second for the first; a lost line each would be twenty minutes.
        #expect(took < .seconds(60))
        let kept = text.count { $0 == UInt8(ascii: "\n") }
        let later = String(decoding: rest, as: UTF8.self).split(separator: "\n")
        #expect(later.contains { $0.hasSuffix("\(5000 - kept) lines of the log were lost") })
        #expect(later.last?.hasSuffix("the last word") == true)
    }
}
