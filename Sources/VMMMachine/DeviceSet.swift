import VMMBase
import VMMDevices
import VMMHost
import VMMVirtIO

/// The machine's devices with their host sides opened. They outlive the guest's reboots: files,
/// taps and terminals stay, and only what they are plugged into is made anew.
package final class DeviceSet {
    struct VirtIO: Sendable {
        let id: String
        let device: LoopBound<any VirtIODevice>
        /// The PCI device number that the user asked for.
        let place: UInt8?
    }

    private(set) var virtIO: [VirtIO] = []
    private(set) var serial: (any ByteChannel)?
    private(set) var debugConsole: (channel: any ByteChannel, port: UInt16)?
    private var channels: [any ByteChannel] = []

    /// Opens all; all mistakes at once, and nothing stays open then.
    package init(
        _ outline: MachineOutline, loop: EventLoop, clock: any HostClock
    ) throws(ConfigurationError) {
        var problems: [ConfigurationProblem] = []
        for device in outline.devices {
            let context = DeviceContext(id: device.id, loop: loop, clock: clock)
            do {
                try add(device, device.spec.build(context))
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

    private func add(_ device: MachineOutline.Device, _ built: BuiltDevice) throws {
        switch built {
        case .virtIO(let made):
            virtIO.append(
                VirtIO(id: device.id, device: LoopBound(adopting: made), place: device.spec.pciDevice))
        case .serial(let channel): serial = channel
        case .debugConsole(let channel, let port):
            debugConsole = (channel, port)
        case .none: break
        }
    }

    /// The terminal that the monitor was started on has a new size.
    package func terminalResized() {
        for channel in channels { channel.terminalResized() }
    }

    /// Writes out what consoles still hold and gives up their files. After the loop has ended.
    package func finish() {
        for channel in channels { channel.finish() }
    }
}
