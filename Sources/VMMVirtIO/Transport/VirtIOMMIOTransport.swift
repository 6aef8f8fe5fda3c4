import Synchronization
import VMMBase
import VMMBus
import VMMHost

/// A virtio device as a page of registers with one interrupt (VirtIO 1.3, 4.2). vCPU threads
/// program it.
package final class VirtIOMMIOTransport: VirtIOTransport {
    /// The size of the registers, which begin a page.
    package static let byteCount = VirtIOMMIO.byteCount

    package var id: String { control.id }
    private let type: VirtIODeviceType
    private let control: DeviceControl
    private let wiring: MMIOWiring
    private let address: GuestAddress
    /// Signalled by the loop for each reset that is done: several vCPUs may wait, each for its own.
    private let resetDone: Semaphore

    /// Plugs `device` in: it answers at `address` at once.
    package init(
        _ device: LoopBound<any VirtIODevice>, plug: TransportPlug, interrupt: any EdgeInterrupt,
        address: GuestAddress
    ) throws {
        let traits = device.withValue { DeviceControl.Traits($0) }
        type = traits.type
        wiring = MMIOWiring(interrupt, address)
        control = try DeviceControl(device, traits, plug: plug, wiring: wiring)
        resetDone = try Semaphore()
        self.address = address
        interrupt.whenUnmasked { [weak wiring] in wiring?.signalAgain() }
        try plug.memoryBus.attach(self, at: address.rawValue, count: Self.byteCount)
    }

    package func pause() { control.pause() }
    package func resume() { control.resume() }

    package func unplug() {
        control.deactivate()
        control.plug.memoryBus.detach(at: address.rawValue)
    }
}

// Registers. Of any other width, at any other place, they read as zeros and ignore writes.
extension VirtIOMMIOTransport: BusDevice {
    package func read(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard offset < VirtIOMMIO.configurationOffset else {
            return control.readConfiguration(
                at: Int(clamping: offset - VirtIOMMIO.configurationOffset), width)
        }
        guard width == .doubleWord, let register = VirtIOMMIO.Register(rawValue: offset) else {
            return 0
        }
        return UInt64(read(register))
    }

    private func read(_ register: VirtIOMMIO.Register) -> UInt32 {
        if register == .interruptStatus { return wiring.interruptStatus }
        return control.facilities.withLock { facilities in
            switch register {
            case .magic: VirtIOMMIO.magic
            case .version: VirtIOMMIO.version
            case .deviceID: UInt32(type.rawValue)
            case .vendorID: VirtIOMMIO.vendor
            case .deviceFeatures: facilities.deviceFeatureWord
            case .queueSizeLimit: UInt32(facilities.selectedQueueLimit)
            case .queueReady: facilities.selectedQueue?.isEnabled == true ? 1 : 0
            case .queueReset: facilities.selectedQueue?.isResetting == true ? 1 : 0
            case .status: UInt32(facilities.status)
            case .configurationGeneration: UInt32(facilities.generation)
            case .sharedMemoryLengthLow, .sharedMemoryLengthHigh, .sharedMemoryBaseLow,
                .sharedMemoryBaseHigh:
                VirtIOMMIO.noRegion
            default: 0
            }
        }
    }

    package func write(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset < VirtIOMMIO.configurationOffset else {
            control.writeConfiguration(
                at: Int(clamping: offset - VirtIOMMIO.configurationOffset), width, value)
            return
        }
        guard width == .doubleWord, let register = VirtIOMMIO.Register(rawValue: offset) else {
            return
        }
        let word = UInt32(truncatingIfNeeded: value)
        switch register {
        case .queueNotify: control.ring(Int(word))
        case .interruptAcknowledge: wiring.acknowledge(word)
        case .status: setStatus(UInt8(truncatingIfNeeded: word))
        case .queueReady where word == 1: control.change { $0.enableQueue() }
        case .queueReset where word == 1: control.change { $0.resetQueue() }
        default:
            control.change { facilities in
                Self.apply(register, word, &facilities)
                return .none
            }
        }
    }

    /// A driver of this transport takes a reset for done as soon as it is written (Linux frees
    /// its rings then): the vCPU waits until the loop has taken the queues away.
    private func setStatus(_ value: UInt8) {
        let resets = control.change(afterReset: { [resetDone] in resetDone.signal() }) {
            $0.setStatus(value)
        }
        if resets { resetDone.wait() }
    }

    private static func apply(
        _ register: VirtIOMMIO.Register, _ word: UInt32, _ facilities: inout BasicFacilities
    ) {
        switch register {
        case .deviceFeaturesSelect: facilities.deviceFeatureSelect = word
        case .driverFeaturesSelect: facilities.driverFeatureSelect = word
        case .driverFeatures: facilities.setDriverFeatures(word)
        case .queueSelect: facilities.queueSelect = word
        case .queueSize: facilities.setQueueSize(word)
        case .queueReady where word == 0: facilities.disableQueue()
        case .descriptorsLow, .descriptorsHigh:
            facilities.changeQueue {
                BasicFacilities.set(
                    &$0.layout.descriptors, word, high: register == .descriptorsHigh)
            }
        case .driverAreaLow, .driverAreaHigh:
            facilities.changeQueue {
                BasicFacilities.set(
                    &$0.layout.driverArea, word, high: register == .driverAreaHigh)
            }
        case .deviceAreaLow, .deviceAreaHigh:
            facilities.changeQueue {
                BasicFacilities.set(
                    &$0.layout.deviceArea, word, high: register == .deviceAreaHigh)
            }
        default: break
        }
    }
}

/// One interrupt for all, whose cause is in a status register, and one address for all doorbells.
private final class MMIOWiring: TransportWiring {
    /// The interrupt of all queues.
    private final class UsedBuffer: QueueInterrupt {
        private let wiring: MMIOWiring

        init(_ wiring: MMIOWiring) {
            self.wiring = wiring
        }

        func signal() { wiring.signal(VirtIOMMIO.Interrupt.usedBuffer) }

        func signal(through sink: any EventSink) {
            wiring.signal(VirtIOMMIO.Interrupt.usedBuffer, through: sink)
        }
    }

    private let line: any EdgeInterrupt
    private let address: GuestAddress
    private let pending = Atomic<UInt32>(0)

    init(_ line: any EdgeInterrupt, _ address: GuestAddress) {
        self.line = line
        self.address = address
    }

    func interrupt(of queue: BasicFacilities.Queue) -> any QueueInterrupt { UsedBuffer(self) }

    func configurationChanged(vector: UInt16?) {
        if vector == nil {
            pending.bitwiseOr(
                VirtIOMMIO.Interrupt.configuration, ordering: .acquiringAndReleasing)
        } else {
            signal(VirtIOMMIO.Interrupt.configuration)
        }
    }

    func reset() { pending.store(0, ordering: .releasing) }

    func doorbell(ofQueue index: Int) -> Doorbell? {
        address.advanced(by: VirtIOMMIO.Register.queueNotify.rawValue).map {
            Doorbell(address: $0, value: UInt32(truncatingIfNeeded: index))
        }
    }

    var interruptStatus: UInt32 { pending.load(ordering: .acquiring) }

    func acknowledge(_ bits: UInt32) {
        pending.bitwiseAnd(~bits, ordering: .acquiringAndReleasing)
    }

    /// The cause first: the guest may look at it before `signal` returns.
    private func signal(_ bit: UInt32, through sink: (any EventSink)? = nil) {
        pending.bitwiseOr(bit, ordering: .acquiringAndReleasing)
        if let sink { line.signal(through: sink) } else { line.signal() }
    }

    /// The guest masked the line for a while, and an edge may have been lost.
    func signalAgain() {
        if interruptStatus != 0 { line.signal() }
    }
}
