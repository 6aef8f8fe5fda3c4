import Synchronization
import Testing
import VMMBase
import VMMHost
import VMMTestSupport
import VMMVirtIO

@testable import VMMDevices

@Suite("VirtIOWatchdog")
struct VirtIOWatchdogTests {
    private final class Expiries: Sendable {
        let count = Atomic<Int>(0)
    }

    private let clock = ManualClock(monotonic: 1)
    private let expiries = Expiries()
    private let device: VirtIOWatchdog
    private let driver: FakeDriver

    init() throws {
        device = try VirtIOWatchdog(id: "__watchdog", clock: clock) { [expiries] in
            expiries.count.add(1, ordering: .relaxed)
        }
        driver = try FakeDriver(device)
    }

    private var expired: Int { expiries.count.load(ordering: .relaxed) }

    @Test("it is given by a bare word")
    func spec() throws {
        let spec = try WatchdogSpec.parse(OptionText(option: "--watchdog", pairs: []))
        let context = DeviceContext(id: "__watchdog", loop: try EventLoop(), clock: clock)
        guard case .virtIO(let made, _) = try spec.build(context) else {
            return #expect(Bool(false), "no virtio device")
        }
        #expect(made.id == "__watchdog" && made.deviceType.rawValue == 35)
        #expect(problems("id=x", as: WatchdogSpec.self).count == 1)
    }

    @Test(
        "a hostile driver gets a fault or an answer",
        arguments: VirtIODeviceContract.Scenario.allCases)
    func contract(scenario: VirtIODeviceContract.Scenario) throws {
        let contract = VirtIODeviceContract {
            try VirtIOWatchdog(id: "__watchdog", clock: ManualClock()) {}
        }
        #expect(try contract.violations(scenario) == [])
    }

    private func ping() throws {
        let buffer = driver.writable(4)
        driver.queues[0].add([buffer])
        try driver.ring(0)
        #expect(driver.queues[0].takeUsed().map(\.written) == [1])
        #expect(driver.contents(buffer) == [1, 0, 0, 0])
    }

    @Test("a driver that never began may be silent")
    func silent() throws {
        clock.advance(nanoseconds: 10 * VirtIOWatchdog.patience)
        try device.wake(source: 0)
        #expect(expired == 0)
    }

    @Test("a driver that was heard must be heard again in time")
    func expires() throws {
        for _ in 0..<3 {
            try ping()
            clock.advance(nanoseconds: VirtIOWatchdog.patience - 1)
            try device.wake(source: 0)
        }
        #expect(expired == 0)
        clock.advance(nanoseconds: 1)
        try device.wake(source: 0)
        try device.wake(source: 0)
        #expect(expired == 1)
        // It may begin again.
        try ping()
        clock.advance(nanoseconds: VirtIOWatchdog.patience)
        try device.wake(source: 0)
        #expect(expired == 2)
    }

    @Test("a pause and a reset do not count")
    func pauses() throws {
        try ping()
        clock.advance(nanoseconds: 5 * VirtIOWatchdog.patience)
        device.resumed()
        try device.wake(source: 0)
        #expect(expired == 0)
        device.quiesce()
        clock.advance(nanoseconds: 5 * VirtIOWatchdog.patience)
        try device.wake(source: 0)
        device.resumed()
        #expect(expired == 0)
    }

    @Test("a buffer that cannot be written is given back empty")
    func readOnly() throws {
        driver.queues[0].add([driver.readable([7])])
        try driver.ring(0)
        #expect(driver.queues[0].takeUsed().map(\.written) == [0])
    }
}
