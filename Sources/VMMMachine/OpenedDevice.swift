import VMMDevices
import VMMHost
import VMMVirtIO

/// A device whose host side is open, on its way to the machine: one thread after the other has it.
final class OpenedDevice: Sendable {
    let device: MachineOutline.Device
    let built: LoopBound<BuiltDevice>

    var id: String { device.id }

    init(_ device: MachineOutline.Device, _ built: BuiltDevice) {
        self.device = device
        self.built = LoopBound(adopting: built)
    }

    /// Gives up what was opened, when it has come nowhere.
    func finish() {
        built.withValue { built in
            switch built {
            case .virtIO(let device, let channel):
                device.finish()
                channel?.finish()
            case .serial(let channel), .debugConsole(let channel, _): channel.finish()
            case .card, .none: break
            }
        }
    }
}
