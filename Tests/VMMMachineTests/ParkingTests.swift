import Glibc
import Synchronization
import Testing

@testable import VMMHost
@testable import VMMMachine

@Suite("Parking")
struct ParkingTests {
    private final class Journal: Sendable {
        let words = Mutex<[String]>([])
        func add(_ word: String) { words.withLock { $0.append(word) } }
        var all: [String] { words.withLock { $0 } }
    }

    @Test("the thread stands still until it is released, and then does what waited")
    func parks() throws {
        let thread = try LoopThread(name: "io", role: .tool)
        let journal = Journal()
        let parking = try Parking(thread.loop) {
            journal.add("before")
        } after: {
            journal.add("after")
        }
        thread.loop.post { journal.add("later") }
        #expect(journal.all == ["before"])
        parking.release()
        thread.end()
        #expect(journal.all == ["before", "after", "later"])
    }

    @Test("a thread whose loop has failed is no thread to wait for")
    func fails() throws {
        let loop = try EventLoop()
        let null = try FileDescriptor.open("/dev/null", .readOnly)
        #expect(dup2(null.rawValue, loop.epoll.rawValue) >= 0)
        #expect(throws: HostError.self) { try loop.run() }
        #expect(throws: HostError.self) { try Parking(loop) }
    }

    @Test("one that fails while it is waited for is not waited for any longer")
    func failsMeanwhile() throws {
        let thread = try LoopThread(name: "io", role: .tool)
        let null = try FileDescriptor.open("/dev/null", .readOnly)
        #expect(dup2(null.rawValue, thread.loop.epoll.rawValue) >= 0)
        // The first may still come to pass, for the thread wakes up once more.
        for _ in 0..<2 { (try? Parking(thread.loop))?.release() }
        thread.loop.stop()
        thread.end()
        #expect(throws: HostError.self) { try Parking(thread.loop) }
    }
}
