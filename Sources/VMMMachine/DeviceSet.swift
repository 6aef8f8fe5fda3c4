import Synchronization
import VMMBase
import VMMDevices
import VMMHost
import VMMVirtIO

/// The machine's devices with their host sides opened. They outlive the guest's reboots: files,
/// taps and terminals stay, and only what they are plugged into is made anew.
package final class DeviceSet {
    final class SerialPort: Sendable {
        private let chip = Mutex<UART16550?>(nil)

        func connect(_ uart: UART16550?) { chip.withLock { $0 = uart } }
        func receive(_ bytes: [UInt8]) { chip.withLock { $0 }?.receive(bytes) }
    }

    struct VirtIO: Sendable {
        let id: String
        let device: LoopBound<any VirtIODevice>
        /// The PCI device number that the user asked for.
        let place: UInt8?
    }

    private(set) var virtIO: [VirtIO] = []
    private(set) var serial: (any ByteChannel)?
    private(set) var debugConsole: (channel: any ByteChannel, port: UInt16)?
    /// The chip that takes the serial line's input: another one after each reboot.
    let serialPort = SerialPort()
    private var channels: [any ByteChannel] = []

    /// Opens all; all mistakes at once, and nothing stays open then.
    package init(
        _ outline: MachineOutline, loop: EventLoop, clock: any HostClock
    ) throws(ConfigurationError) {
        var problems: [ConfigurationProblem] = []
        let groups = outline.rateLimitGroups.compactMap { group in
            group.limits.limiter(clock).map { (group.id, $0) }
        }
        for device in outline.devices {
            var context = DeviceContext(id: device.id, loop: loop, clock: clock)
            context.rateLimitGroups = Dictionary(groups) { first, _ in first }
            do {
                try add(device, device.spec.build(context), loop)
            } catch let problem as ConfigurationProblem {
                problems.append(problem)
            } catch {
                let option = type(of: device.spec).option
                problems.append(
                    ConfigurationProblem(option: option, value: "", reason: "\(error)"))
            }
        }
        if !problems.isEmpty {
            finish()
            throw ConfigurationError(problems)
        }
    }

    private func add(
        _ device: MachineOutline.Device, _ built: BuiltDevice, _ loop: EventLoop
    ) throws {
        switch built {
        case .virtIO(let made, let channel):
            if let channel { channels.append(channel) }
            virtIO.append(
                VirtIO(
                    id: device.id, device: LoopBound(adopting: made), place: device.spec.pciDevice))
        case .serial(let channel):
            channels.append(channel)
            serial = channel
            try channel.start(on: loop) { [serialPort] bytes in
                serialPort.receive(bytes)
            }
        case .debugConsole(let channel, let port):
            channels.append(channel)
            debugConsole = (channel, port)
            try channel.start(on: loop, receive: nil)
        case .none: break
        }
    }

    /// The guest is about to run for the first time.
    func guestStarts() {
        for channel in channels { channel.guestStarts() }
    }

    /// The terminal that the monitor was started on has a new size.
    package func terminalResized() {
        for channel in channels { channel.terminalResized() }
    }

    /// Writes out what disks and consoles still hold and gives up their files. After the loop has
    /// ended and the devices are unplugged.
    package func finish() {
        for entry in virtIO { entry.device.withValue { $0.finish() } }
        for channel in channels { channel.finish() }
    }
}
