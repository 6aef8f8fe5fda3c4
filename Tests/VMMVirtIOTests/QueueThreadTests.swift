import Testing
import VMMHost
import VMMVirtIO

/// A queue that has a thread of its own, through a device's life.
@Suite("Queues on threads")
struct QueueThreadTests {
    private let driver: PCIDriver
    private let thread: LoopThread

    init() throws {
        driver = try PCIDriver()
        thread = try LoopThread(name: "queue", role: .tool)
    }

    /// Starts the device with queue 0 on the thread.
    private func start(_ server: ThreadServer) {
        driver.device.threadServer = (thread, server)
        driver.start()
    }

    @Test("the thread serves its queue, and the loop the others")
    func serves() throws {
        let server = try ThreadServer()
        start(server)

        driver.ring(0)
        let isServed = server.waitForCall()
        driver.ring(1)
        driver.settle()

        #expect(isServed)
        #expect(driver.device.serviced == [1])
        driver.reset()
        thread.end()
    }

    @Test("a fault on the thread stops the whole device and sets NEEDS_RESET")
    func faults() throws {
        let server = try ThreadServer(faults: true)
        start(server)

        driver.ring(0)
        let isServed = server.waitForCall()
        // What the thread posts after the call is there when its next turn is over.
        thread.run {}
        driver.settle()

        #expect(isServed)
        #expect(driver.status & PCIDriver.Status.needsReset != 0)
        #expect(driver.device.queues.isEmpty)
        thread.end()
    }

    @Test("after a reset the thread leaves the queue alone, and serves it again when it is back")
    func resets() throws {
        let server = try ThreadServer()
        start(server)

        driver.reset()
        driver.settle()
        driver.ring(0)
        thread.run {}
        let afterReset = server.calls.load(ordering: .relaxed)
        driver.start()
        driver.ring(0)

        #expect(afterReset == 0)
        #expect(server.waitForCall())
        // A reset brings no more to its end than is on its way.
        #expect(server.settled.load(ordering: .relaxed) == 1)
        #expect(server.drained.load(ordering: .relaxed) == 0)
        driver.reset()
        thread.end()
    }

    @Test("a reset of another queue lets the thread serve on, one of its own makes it stop")
    func queueResets() throws {
        let server = try ThreadServer()
        driver.device.threadServer = (thread, server)
        driver.start(Feature.version1 | Feature.queueReset)

        driver.resetQueue(1)
        driver.ring(0)
        let isServed = server.waitForCall()
        driver.device.threadServer = nil
        driver.resetQueue(0)
        driver.ring(0)
        thread.run {}

        #expect(isServed)
        #expect(server.calls.load(ordering: .relaxed) == 1)
        #expect(driver.device.queues.allSatisfy { $0 == nil })
        driver.reset()
        thread.end()
    }

    @Test("a thread keeps to its CPUs, and CPUs that the host lacks are an error")
    func affinity() throws {
        let pinned = try LoopThread(name: "pinned", role: .tool, cpus: [0])
        pinned.end()
        #expect(throws: HostError.self) {
            _ = try LoopThread(name: "pinned", role: .tool, cpus: [1023])
        }
        thread.end()
    }
}
