import Glibc
import Synchronization
import Testing

@testable import VMMHost

@Suite("LoopThread")
struct LoopThreadTests {
    @Test("queues share threads when there are more of them than CPUs")
    func shares() throws {
        let cpus = HostThread.processorCount
        let threads = try LoopThread.forQueues(of: "disk", count: 2 * cpus + 1)
        defer { for thread in threads { thread.end() } }

        #expect(threads.count == 2 * cpus + 1)
        #expect(Set(threads.map { ObjectIdentifier($0) }).count == cpus)
        #expect(threads[0] === threads[cpus] && threads[0] === threads[2 * cpus])
    }

    @Test("queues with CPUs of their own have threads of their own")
    func keeps() throws {
        let threads = try LoopThread.forQueues(
            of: "disk", count: HostThread.processorCount + 1, cpus: { _ in [] })
        defer { for thread in threads { thread.end() } }

        #expect(
            Set(threads.map { ObjectIdentifier($0) }).count == HostThread.processorCount + 1)
    }

    @Test("CPUs that the host does not have end all threads")
    func refuses() {
        #expect(throws: HostError.self) {
            try LoopThread.forQueues(of: "disk", count: 2) { [$0 == 0 ? 0 : 1023] }
        }
    }

    @Test("nobody waits for a thread whose loop has failed")
    func failure() throws {
        let thread = try LoopThread(name: "broken", role: .tool)
        let null = try FileDescriptor.open("/dev/null", .readOnly)
        #expect(dup2(null.rawValue, thread.loop.epoll.rawValue) >= 0)
        let calls = Atomic<Int>(0)
        for _ in 0..<3 { thread.run { calls.add(1, ordering: .relaxed) } }
        #expect(calls.load(ordering: .relaxed) == 3)
        thread.end()
    }
}
