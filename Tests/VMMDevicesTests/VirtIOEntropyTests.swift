import Foundation
import Testing
import VMMHost
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

@Suite("VirtIOEntropy")
struct VirtIOEntropyTests {
    private func makeDriver(_ path: String = "/dev/urandom") throws -> FakeDriver {
        try FakeDriver(try VirtIOEntropy(id: "_rng", path: path))
    }

    @Test(
        "a hostile driver gets a fault or an answer",
        arguments: VirtIODeviceContract.Scenario.allCases)
    func contract(scenario: VirtIODeviceContract.Scenario) throws {
        let contract = VirtIODeviceContract { try VirtIOEntropy(id: "_rng") }
        #expect(try contract.violations(scenario) == [])
    }

    @Test("a request is filled to its last byte, over all its buffers")
    func fills() throws {
        let driver = try makeDriver()
        let buffers = [driver.writable(64), driver.writable(64)]
        driver.queues[0].add(buffers)
        try driver.ring(0)
        #expect(driver.queues[0].takeUsed() == [FakeQueue.Completion(head: 0, written: 128)])
        // 64 zero bytes come by chance once in 2^512 requests.
        #expect(buffers.allSatisfy { driver.contents($0) != Array(repeating: 0, count: 64) })
        #expect(driver.queues[0].interrupt.count == 1)
    }

    @Test("a request gets 64 KiB at most")
    func requestLimit() throws {
        let driver = try makeDriver()
        driver.queues[0].add([driver.writable(100_000)])
        try driver.ring(0)
        #expect(driver.queues[0].takeUsed().map(\.written) == [65_536])
    }

    @Test("many large requests are served in turns, and all without another doorbell")
    func turns() throws {
        let driver = try makeDriver()
        let buffer = driver.writable(65_536)
        for _ in 0..<32 { driver.queues[0].add([buffer]) }
        try driver.ring(0)
        #expect(driver.queues[0].takeUsed().count == 4)
        #expect(try driver.settle() > 0)
        #expect(driver.queues[0].takeUsed().count == 28)
    }

    @Test("a file's bytes come in order; where it ends the system fills in")
    func fileSource() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("seed")
        #expect(FileManager.default.createFile(atPath: path, contents: Data([1, 2, 3, 4, 5])))
        let driver = try makeDriver(path)
        let buffers = [driver.writable(3), driver.writable(32), driver.writable(32)]
        for buffer in buffers { driver.queues[0].add([buffer]) }
        try driver.ring(0)
        #expect(driver.queues[0].takeUsed().map(\.written) == [3, 32, 32])
        #expect(driver.contents(buffers[0]) == [1, 2, 3])
        #expect(driver.contents(buffers[1], count: 2) == [4, 5])
        #expect(driver.contents(buffers[2]) != Array(repeating: 0, count: 32))
    }

    @Test("a source that is not there is an error that names it")
    func missingSource() {
        #expect(throws: HostError.self) { try VirtIOEntropy(id: "_rng", path: "/nonexistent") }
    }

    @Test("a request without room is answered with nothing")
    func noRoom() throws {
        let driver = try makeDriver()
        driver.queues[0].add([driver.readable([1])])
        try driver.ring(0)
        #expect(driver.queues[0].takeUsed().map(\.written) == [0])
    }
}
