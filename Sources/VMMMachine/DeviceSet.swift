import Synchronization
import VMMBase
import VMMBus
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
        let handle: (any DeviceHandle)?
        /// May leave the machine while it runs.
        let isRemovable: Bool
        /// Where on PCI it is to be: what the user asked for, then what it got.
        fileprivate(set) var place: PlaceOptions
        /// Ends it, and gives up its files. When it has left the machine.
        func finish() { device.withValue { $0.finish() } }
    }

    /// A PCI function that is no virtio device.
    struct Card: Sendable {
        let id: String
        let byteCount: UInt64
        let make: @Sendable (Bus, GuestAddress) -> any PCICard
    }

    private(set) var virtIO: [VirtIO] = []
    private(set) var cards: [Card] = []
    /// What devices tell goes through here.
    let reports = DeviceReports()
    private(set) var serial: (any ByteChannel)?
    private(set) var debugConsole: (channel: any ByteChannel, port: UInt16)?
    /// The chip that takes the serial line's input: another one after each reboot.
    let serialPort = SerialPort()
    private var channels: [any ByteChannel] = []
    private let loop: EventLoop
    private let clock: any HostClock
    private let rateLimitGroups: [String: RateLimiter]

    /// Opens all; all mistakes at once, and nothing stays open then.
    package init(
        _ outline: MachineOutline, loop: EventLoop, clock: any HostClock
    ) throws(ConfigurationError) {
        self.loop = loop
        self.clock = clock
        let groups = outline.rateLimitGroups.compactMap { group in
            group.limits.limiter(clock).map { (group.id, $0) }
        }
        rateLimitGroups = Dictionary(groups) { first, _ in first }
        var problems: [ConfigurationProblem] = []
        for device in outline.devices {
            do throws(ConfigurationProblem) {
                try open(device)
            } catch {
                problems.append(error)
            }
        }
        if !problems.isEmpty {
            finish()
            throw ConfigurationError(problems)
        }
    }

    /// At the boot, there is no guest that would have to wait for slow files.
    private func open(_ device: MachineOutline.Device) throws(ConfigurationProblem) {
        let opened = try opener(of: device)()
        do {
            try add(opened)
        } catch {
            opened.finish()
            throw device.problem("", "", "\(error)")
        }
    }

    /// What opens a device, on any thread.
    func opener(
        of device: MachineOutline.Device
    ) -> @Sendable () throws(ConfigurationProblem) -> OpenedDevice {
        var context = DeviceContext(id: device.id, loop: loop, clock: clock)
        context.rateLimitGroups = rateLimitGroups
        context.report = { [reports] in reports.tell($0) }
        return { [context] () throws(ConfigurationProblem) in
            do {
                return OpenedDevice(device, try device.spec.build(context))
            } catch let problem as ConfigurationProblem {
                throw problem.at(device.index)
            } catch {
                throw device.problem("", "", "\(error)")
            }
        }
    }

    /// Takes one device more. While the loop stands still.
    func add(_ opened: OpenedDevice) throws {
        try opened.built.withValue { try add(opened.device, $0) }
    }

    private func add(_ device: MachineOutline.Device, _ built: BuiltDevice) throws {
        switch built {
        case .virtIO(let made, let channel):
            do {
                try made.attach()
            } catch {
                made.detach()
                throw error
            }
            if let channel { channels.append(channel) }
            virtIO.append(
                VirtIO(
                    id: device.id, device: LoopBound(adopting: made), handle: made.handle,
                    isRemovable: type(of: device.spec).isHotpluggable,
                    place: device.spec.place))
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
        case .card(let byteCount, let make):
            cards.append(Card(id: device.id, byteCount: byteCount, make: make))
        case .none: break
        }
    }

    /// A device keeps its place through reboots.
    func remember(_ address: PCIAddress, of id: String) {
        guard let index = virtIO.firstIndex(where: { $0.id == id }) else { return }
        virtIO[index].place = PlaceOptions(segment: address.segment, device: address.device)
    }

    /// Takes a device out that has left the machine; who gets it ends it. While the loop stands
    /// still.
    func take(_ id: String) -> VirtIO? {
        guard let index = virtIO.firstIndex(where: { $0.id == id }) else { return nil }
        let device = virtIO.remove(at: index)
        device.device.withValue { $0.detach() }
        return device
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
        for entry in virtIO { entry.finish() }
        for channel in channels { channel.finish() }
    }
}
