import Testing
import VMMHost
import VMMVirtIO

/// A device that stands still for a while, as in a machine that is paused.
@Suite("Pause")
struct PauseTests {
    private let driver: PCIDriver

    init() throws {
        driver = try PCIDriver()
    }

    @Test("a paused device is left alone, and hears afterwards of what rang")
    func pause() {
        driver.start()
        driver.transport.pause()
        driver.ring(1)
        driver.settle()
        let duringPause = driver.device.serviced
        driver.transport.resume()
        driver.settle()

        #expect(duringPause.isEmpty)
        #expect(driver.device.serviced.contains(1))
        #expect(driver.device.quiesceCount == 0)
    }

    @Test("so is a queue with a thread of its own")
    func thread() throws {
        let thread = try LoopThread(name: "queue", role: .tool)
        let server = try ThreadServer()
        driver.device.threadServer = (thread, server)
        driver.start()
        driver.transport.pause()
        driver.ring(0)
        thread.run {}
        let duringPause = server.calls.load(ordering: .relaxed)
        driver.transport.resume()

        #expect(duringPause == 0)
        #expect(server.waitForCall())
        #expect(server.drained.load(ordering: .relaxed) == 1)
        #expect(server.settled.load(ordering: .relaxed) == 0)
        driver.reset()
        thread.end()
    }

    @Test("a device without a driver can be paused, and taken back while it is")
    func withoutDriver() {
        driver.transport.pause()
        driver.transport.resume()
        driver.start()
        driver.transport.pause()
        driver.transport.unplug()

        #expect(driver.device.queues.isEmpty)
    }
}
