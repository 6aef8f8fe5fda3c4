import Synchronization
import VMMHost

/// An event loop on a thread of its own, for tests of what runs on one. Ends with `stop`.
final class LoopFixture {
    let loop: EventLoop
    private let thread: HostThread

    init() throws {
        ProcessSignals.ignoreBrokenPipes()
        let loop = try EventLoop()
        self.loop = loop
        thread = try HostThread(name: "test loop", role: .tool) { try? loop.run() }
    }

    /// Runs `body` on the loop and waits for it; what was posted before has run by then.
    func sync(_ body: @escaping @Sendable () -> Void = {}) throws {
        let done = try EventFD()
        loop.post {
            body()
            done.signal()
        }
        _ = done.descriptor.isReady(.readable, waitingMilliseconds: 10_000)
    }

    func stop() {
        loop.stop()
        thread.join()
    }
}

/// Collects what a channel delivers, and lets a test wait for it.
final class Inbox: Sendable {
    private let bytes = Mutex<[UInt8]>([])
    private let arrived: EventFD

    init() throws {
        arrived = try EventFD()
    }

    func append(_ more: [UInt8]) {
        bytes.withLock { $0 += more }
        arrived.signal()
    }

    var count: Int { bytes.withLock { $0.count } }

    /// Waits until `count` bytes are there, ten seconds for each delivery at most.
    func wait(for count: Int) -> [UInt8] {
        while self.count < count {
            guard arrived.descriptor.isReady(.readable, waitingMilliseconds: 10_000) else { break }
            arrived.clear()
        }
        return bytes.withLock { $0 }
    }
}

extension FileDescriptor {
    /// Reads exactly `count` bytes, waiting up to ten seconds for each piece; fewer at the end.
    func readFully(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count, isReady(.readable, waitingMilliseconds: 10_000) {
            guard case .moved = read(into: &bytes, limit: count - bytes.count) else { break }
        }
        return bytes
    }
}
