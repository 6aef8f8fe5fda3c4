import Foundation
import Synchronization
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

private let hasRing = (try? IORing(depth: 1)) != nil

/// A loop that waits in a ring: nothing that epoll would have told is lost.
@Suite(
    "EventLoop in a ring",
    .enabled(if: hasRing, "the kernel has no io_uring"))
struct EventLoopRingTests {

    private let thread: LoopThread
    private let ring: IORing
    private let completions: Tally
    private let directory: TemporaryDirectory

    /// Counts, and can be waited for. Any thread.
    private final class Tally: Sendable {
        private let count = Atomic<Int>(0)
        let bell: EventFD

        init() throws { bell = try EventFD() }

        func add(_ number: Int = 1) {
            count.add(number, ordering: .acquiringAndReleasing)
            bell.signal()
        }

        var value: Int { count.load(ordering: .acquiring) }

        /// True when the count came to be, within ten seconds for each change.
        func reaches(_ target: Int) -> Bool {
            while value < target {
                guard bell.descriptor.isReady(.readable, waitingMilliseconds: 10_000) else {
                    return false
                }
                bell.clear()
            }
            return value == target
        }
    }

    /// The loop waits in the ring, and counts what is finished in `completions`.
    init() throws {
        thread = try LoopThread(name: "ring", role: .tool)
        directory = try TemporaryDirectory()
        completions = try Tally()
        ring = try IORing(depth: 4)
        let shared = LoopBound(adopting: ring)
        thread.run { [thread, completions] in
            shared.withValue { ring in
                try? thread.loop.add(ring.descriptor, [.readable, .edgeTriggered]) { [ring] in
                    while ring.nextCompletion() != nil { completions.add() }
                }
                thread.loop.wait(in: ring)
            }
        }
    }

    private func onLoop(_ work: @escaping @Sendable (EventLoop, IORing) -> Void) {
        let shared = LoopBound(adopting: ring)
        thread.run { [thread] in shared.withValue { work(thread.loop, $0) } }
    }

    private func watch(
        _ descriptor: FileDescriptor, _ interest: EventLoop.Interest,
        _ handler: @escaping @Sendable () -> Void
    ) {
        onLoop { loop, _ in try? loop.add(descriptor, interest, handler: handler) }
    }

    @Test("requests are handed over without a call of their owner")
    func requests() throws {
        defer { thread.end() }
        let file = try FileDescriptor.open(directory.file("image"), [.readWrite, .create])
        for round in 1...20 {
            onLoop { _, ring in
                for token in 0..<3 { ring.enqueue(.flush, on: file, token: UInt64(token)) }
                ring.submit()
            }
            #expect(completions.reaches(3 * round))
        }
    }

    @Test("each ring of a doorbell is heard, also of one that was there before")
    func doorbells() throws {
        defer { thread.end() }
        let bells = try (0..<4).map { _ in try EventFD() }
        let tally = try Tally()
        for bell in bells {
            watch(bell.descriptor, [.readable, .edgeTriggered]) { tally.add() }
        }
        for round in 0..<100 {
            bells[round % 4].signal()
            #expect(tally.reaches(round + 1))
        }
    }

    @Test("a bell that rings whenever it is served keeps nobody waiting")
    func endlessBell() throws {
        defer { thread.end() }
        let bell = try EventFD()
        onLoop { loop, ring in
            try? loop.add(bell.descriptor, [.readable, .edgeTriggered]) { [ring] in
                bell.clear()
                bell.signal()
                // Takes what the kernel has told meanwhile: that it rang.
                _ = ring.nextCompletion()
            }
        }
        bell.signal()
        let served = try EventFD()
        thread.loop.post { served.signal() }
        #expect(served.descriptor.isReady(.readable, waitingMilliseconds: 10_000))
    }

    /// Rounds of the test of all at once; more by hand.
    private static let rounds =
        ProcessInfo.processInfo.environment["SWIFTLET_ROUNDS"].flatMap(Int.init) ?? 2000

    @Test("nothing is lost while bells, pipes, requests and posted work come at once")
    func together() throws {
        defer { thread.end() }
        let file = try FileDescriptor.open(directory.file("image"), [.readWrite, .create])
        let other = LoopBound(adopting: try IORing(depth: 4))
        // A request in the other ring, which this loop watches, answered through the first.
        let (bell, answer) = (try EventFD(), try EventFD())
        let shared = LoopBound(adopting: ring)
        thread.run { [thread] in
            other.withValue { other in
                let first = shared.withValue { $0 }
                try? thread.loop.add(other.descriptor, [.readable, .edgeTriggered]) {
                    [other] in
                    while other.nextCompletion() != nil { answer.signal(through: first) }
                }
                thread.loop.wait(in: other)
                try? thread.loop.add(bell.descriptor, [.readable, .edgeTriggered]) { [other] in
                    guard bell.clear() else { return }
                    other.enqueue(.flush, on: file, token: 1)
                    other.submit()
                }
            }
        }
        let (near, far) = try UnixSocket.streamPair()
        let echo = try EventFD()
        watch(near, [.readable]) {
            var bytes: [UInt8] = []
            if case .moved = near.read(into: &bytes, limit: 1) { echo.signal() }
        }
        let posted = try EventFD()
        try Self.together([
            {
                bell.signal(); return answer
            },
            {
                _ = far.write([1]); return echo
            },
            { [thread] in
                thread.loop.post { posted.signal() }; return posted
            },
        ])
    }

    /// Each asks again and again, on a thread of its own, and waits for the event each time.
    private static func together(_ asks: [@Sendable () -> EventFD]) throws {
        let lost = Atomic<Int>(0)
        let threads = try asks.map { ask in
            try HostThread(name: "asker", role: .tool) {
                for _ in 0..<rounds {
                    let answer = ask()
                    guard answer.descriptor.isReady(.readable, waitingMilliseconds: 10_000) else {
                        lost.add(1, ordering: .relaxed)
                        return
                    }
                    answer.clear()
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(lost.load(ordering: .relaxed) == 0)
    }

    @Test("a level-triggered handler that leaves something is called again")
    func levels() throws {
        defer { thread.end() }
        let bell = try EventFD()
        let tally = try Tally()
        watch(bell.descriptor, [.readable]) {
            tally.add()
            if tally.value == 40 { bell.clear() }
        }
        bell.signal()
        #expect(tally.reaches(40))
    }

    @Test("events are raised in their own time, and all of them")
    func raised() throws {
        defer { thread.end() }
        let event = try EventFD()
        for _ in 0..<50 {
            // More than the ring has room for at once.
            onLoop { _, ring in for _ in 0..<9 { event.signal(through: ring) } }
            #expect(event.descriptor.isReady(.readable, waitingMilliseconds: 10_000))
            event.clear()
        }
    }

    @Test("what is changed or removed is not heard of any more, what stays is")
    func changes() throws {
        defer { thread.end() }
        let (kept, removed) = (try EventFD(), try EventFD())
        let (tally, silence) = (try Tally(), try Tally())
        watch(kept.descriptor, [.readable, .edgeTriggered]) { tally.add() }
        watch(removed.descriptor, [.readable, .edgeTriggered]) { silence.add() }
        onLoop { loop, _ in
            // Rung, and forgotten before the loop looks.
            removed.signal()
            loop.remove(removed.descriptor)
            loop.change(kept.descriptor, to: [.readable, .writable, .edgeTriggered])
        }
        // It is writable at once.
        #expect(tally.reaches(1))
        kept.signal()
        #expect(tally.reaches(2))
        #expect(silence.value == 0)
    }

    @Test("when the ring goes, the loop waits in the next, and at last in epoll")
    func successors() throws {
        defer { thread.end() }
        let second = LoopBound(adopting: try IORing(depth: 4))
        let bell = try EventFD()
        let tally = try Tally()
        // A counter that is up is an event again for whoever begins to wait for it.
        watch(bell.descriptor, [.readable, .edgeTriggered]) {
            if bell.clear() { tally.add() }
        }
        let file = try FileDescriptor.open(directory.file("image"), [.readWrite, .create])
        thread.run { [thread, completions] in
            second.withValue { ring in
                try? thread.loop.add(ring.descriptor, [.readable, .edgeTriggered]) { [ring] in
                    while ring.nextCompletion() != nil { completions.add() }
                }
                thread.loop.wait(in: ring)
                ring.enqueue(.flush, on: file, token: 1)
            }
        }
        #expect(completions.reaches(1))
        onLoop { loop, ring in loop.remove(ring.descriptor) }
        thread.run { second.withValue { $0.enqueue(.flush, on: file, token: 1) } }
        #expect(completions.reaches(2))
        bell.signal()
        #expect(tally.reaches(1))
        thread.run { [thread] in second.withValue { thread.loop.remove($0.descriptor) } }
        bell.signal()
        #expect(tally.reaches(2))
    }

    @Test("a loop that goes on in another thread waits in the ring as before")
    func anotherThread() throws {
        thread.end()
        let loop = thread.loop
        let bell = try EventFD()
        let tally = try Tally()
        try loop.add(bell.descriptor, [.readable, .edgeTriggered]) { tally.add() }
        for round in 1...3 {
            let thread = try HostThread(name: "life", role: .tool) { try? loop.run() }
            bell.signal()
            #expect(tally.reaches(round))
            loop.stop()
            thread.join()
        }
    }
}
