import Synchronization
import VMMDevices

/// Where devices, which outlive the guest's reboots, tell of what happens: to the life that the
/// machine is in. Any thread.
final class DeviceReports: Sendable {
    private let receiver = Mutex<(@Sendable (DeviceReport) -> Void)?>(nil)

    func connect(_ receiver: (@Sendable (DeviceReport) -> Void)?) {
        self.receiver.withLock { $0 = receiver }
    }

    func tell(_ report: DeviceReport) { receiver.withLock { $0 }?(report) }
}
