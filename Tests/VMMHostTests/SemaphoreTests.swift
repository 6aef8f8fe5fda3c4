import Testing
import VMMHost

@Suite("Semaphore")
struct SemaphoreTests {
    @Test("each signal lets one thread go on, also when all come before the first looks")
    func oneEach() throws {
        let semaphore = try Semaphore()
        for _ in 0..<4 { semaphore.signal() }
        let passed = try EventFD()
        let threads = try (0..<4).map { _ in
            try HostThread(name: "waiter", role: .tool) {
                semaphore.wait()
                passed.signal()
            }
        }
        for thread in threads { thread.join() }
        #expect(passed.clear())
    }
}
