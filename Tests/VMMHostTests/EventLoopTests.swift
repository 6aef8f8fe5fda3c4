import Glibc
import Synchronization
import Testing

@testable import VMMHost

/// Collects what happened, in order. Any thread.
private final class Journal: Sendable {
    private let entries = Mutex<[Int]>([])

    func add(_ entry: Int) { entries.withLock { $0.append(entry) } }
    var all: [Int] { entries.withLock { $0 } }
}

@Suite("EventLoop")
struct EventLoopTests {
    private let loop: EventLoop
    private let journal = Journal()

    init() throws {
        loop = try EventLoop()
    }

    @Test("work is done in the order it was posted")
    func order() {
        for index in 0..<100 { loop.post { [journal] in journal.add(index) } }
        loop.post { [loop] in loop.stop() }
        try? loop.run()
        #expect(journal.all == Array(0..<100))
    }

    @Test("work that posted work posts is done before run returns")
    func nested() {
        loop.post { [loop, journal] in
            loop.stop()
            loop.post { journal.add(1) }
        }
        try? loop.run()
        #expect(journal.all == [1])
    }

    @Test("a stop from before run ends it at once, with what was posted done")
    func earlyStop() {
        loop.stop()
        loop.post { [journal] in journal.add(1) }
        try? loop.run()
        #expect(journal.all == [1])
    }

    @Test("a loop that was stopped runs again")
    func runsAgain() {
        for round in 0..<3 {
            loop.post { [loop, journal] in
                journal.add(round)
                loop.stop()
            }
            try? loop.run()
        }
        #expect(journal.all == [0, 1, 2])
    }

    @Test("work posted by other threads arrives, each thread's in its order")
    func threads() throws {
        let threads = try (0..<4).map { thread in
            try HostThread(name: "poster", role: .tool) { [loop, journal] in
                for index in 0..<250 { loop.post { journal.add(1000 * thread + index) } }
            }
        }
        for thread in threads { thread.join() }
        loop.post { [loop] in loop.stop() }
        try? loop.run()
        let entries = journal.all
        for thread in 0..<4 {
            #expect(entries.filter { $0 / 1000 == thread }.map { $0 % 1000 } == Array(0..<250))
        }
    }

    @Test("a handler is called while its descriptor is ready")
    func handler() throws {
        let event = try EventFD()
        event.signal()
        try loop.add(event.descriptor, [.readable]) { [loop, journal] in
            journal.add(1)
            // Level-triggered: it comes again until the counter is cleared.
            if journal.all.count == 3 {
                event.clear()
                loop.stop()
            }
        }
        try? loop.run()
        #expect(journal.all == [1, 1, 1])
    }

    @Test("a handler that another one of the same batch removed is not called")
    func removal() throws {
        let events = [try EventFD(), try EventFD()]
        for (index, event) in events.enumerated() {
            event.signal()
            try loop.add(event.descriptor, [.readable]) { [loop, journal] in
                journal.add(index)
                for event in events { loop.remove(event.descriptor) }
            }
        }
        for _ in 0..<2 {
            loop.post { [loop] in loop.stop() }
            try? loop.run()
        }
        #expect(journal.all.count == 1)
    }

    @Test("a descriptor takes one handler, and another once that is removed")
    func oneHandler() throws {
        let event = try EventFD()
        try loop.add(event.descriptor, [.readable]) {}
        #expect(throws: HostError.self) { try loop.add(event.descriptor, [.readable]) {} }
        loop.remove(event.descriptor)
        loop.remove(event.descriptor)
        try loop.add(event.descriptor, [.readable]) {}
    }

    @Test("a poster that never rests does not keep the handlers waiting")
    func fairness() throws {
        let event = try EventFD()
        let poster = Poster(loop, journal)
        let pieces = Mutex(Int.max)
        try loop.add(event.descriptor, [.readable, .edgeTriggered]) { [journal] in
            pieces.withLock { $0 = journal.all.count }
        }
        loop.post { poster.work(1000) }
        loop.post { event.signal() }
        try? loop.run()
        // The signal is posted behind the first of 1001 pieces; its handler comes a turn later.
        #expect(pieces.withLock { $0 } <= 3)
    }

    /// Posts itself until `count` is used up, then stops the loop.
    private final class Poster: Sendable {
        let loop: EventLoop
        let journal: Journal

        init(_ loop: EventLoop, _ journal: Journal) {
            self.loop = loop
            self.journal = journal
        }

        func work(_ count: Int) {
            journal.add(count)
            if count == 0 { return loop.stop() }
            loop.post { self.work(count - 1) }
        }
    }

    @Test("a loop that the kernel lets down does what was posted, and takes no more")
    func failure() throws {
        let broken = try EventLoop()
        broken.post { [journal] in journal.add(1) }
        // Something that cannot be waited for, under the number of what could.
        let null = try FileDescriptor.open("/dev/null", .readOnly)
        #expect(dup2(null.rawValue, broken.epoll.rawValue) >= 0)
        #expect(throws: HostError.self) { try broken.run() }
        #expect(broken.hasFailed)
        let isTaken = broken.post { [journal] in journal.add(2) }
        #expect(!isTaken)
        #expect(journal.all == [1])
    }
}
