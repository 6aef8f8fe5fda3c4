import Foundation
import Testing
import VMMTestSupport

@testable import VMMHost

@Suite("UnixListener")
struct UnixListenerTests {
    private func turn(_ loop: EventLoop) throws {
        loop.post { loop.stop() }
        try loop.run()
    }

    @Test("while no descriptor is left its clients wait, and the loop rests")
    func shortage() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("s")
        let listener = try UnixListener(path: path)
        let loop = try EventLoop()
        var isShort = true
        var attempts = 0
        var clients: [FileDescriptor] = []
        func next() throws(HostError) -> FileDescriptor? {
            attempts += 1
            if isShort { throw HostError("accept", code: EMFILE) }
            return try listener.next()
        }
        // Ten milliseconds, which ten turns of a loop that does not rest are far below.
        try listener.serve(on: loop, pauseNanoseconds: 10_000_000, next: next) {
            clients.append($0)
        }
        let client = try UnixListener.connect(to: path)
        for _ in 0..<10 { try turn(loop) }
        #expect(attempts < 10)

        isShort = false
        for _ in 0..<100_000 where clients.isEmpty { try turn(loop) }
        #expect(clients.count == 1)
        loop.remove(listener.descriptor)
        _ = client
    }
}
