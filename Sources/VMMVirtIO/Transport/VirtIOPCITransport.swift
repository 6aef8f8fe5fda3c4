import Synchronization
import VMMBase
import VMMBus
import VMMHost

/// A virtio device on the PCI bus (VirtIO 1.3, 4.1): modern only, MSI-X only. vCPU threads program
/// it; configuration space is under a lock of its own, a leaf.
package final class VirtIOPCITransport: VirtIOTransport {
    /// The size of the function's BAR, and its alignment.
    package static let barByteCount = VirtIOPCI.barSize

    package var id: String { control.id }
    let control: DeviceControl
    let wiring: PCIWiring
    let space: Mutex<PCIConfiguration>
    /// Where the PCI-access and MSI-X capabilities start in configuration space.
    let accessCapability: Int
    let msixCapability: Int

    /// Plugs `device` in; it answers at `barAddress` once the guest turns its BAR on.
    package init(
        _ device: LoopBound<any VirtIODevice>, plug: TransportPlug,
        interrupts: any MessageInterruptSource, barAddress: GuestAddress
    ) throws {
        let traits = device.withValue { DeviceControl.Traits($0) }
        wiring = PCIWiring(
            msix: MSIX(vectorCount: traits.vectorCount, source: interrupts))
        control = try DeviceControl(device, traits, plug: plug, wiring: wiring)
        let pci = Self.makeConfiguration(traits, barAddress: barAddress)
        accessCapability = pci.access
        msixCapability = pci.msix
        space = Mutex(pci.configuration)
        try remap()
    }

    /// Where its registers are, or would be if the guest let them answer. Any thread.
    package var registers: GuestRange? {
        wiring.registers ?? space.withLock { $0.barPlace(VirtIOPCI.barIndex) }
    }

    package func pause() { control.pause() }
    package func resume() { control.resume() }

    package func unplug() {
        control.deactivate()
        unmap()
    }

    /// Takes the device from a guest that goes on: nothing of the machine's is left with it. A
    /// vCPU may be among its registers at this moment. On the loop's thread, or while it stands
    /// still.
    package func remove() {
        control.retire()
        unmap()
        wiring.msix.release()
    }

    private func unmap() {
        var old: GuestRange?
        control.move {
            old = wiring.moveRegisters(to: nil)
            return old != nil
        } _: {
            if let old { control.plug.memoryBus.detach(at: old.start.rawValue) }
        }
    }

    // MARK: addresses

    /// Makes the memory bus answer where the BAR is now.
    func remap() throws {
        // The place that the bus has to give up, and the one to take.
        var old: GuestRange?
        var new: GuestRange?
        try control.move {
            // While decoding is off an unmoved range stays and reads as all ones: guests switch it
            // off and on again without moving anything, and each move costs the kernel a lot. One
            // that has moved leaves its place at once, for another function may move there.
            let (place, isDecoding) = space.withLock { space in
                let isDecoding = space.barRange(VirtIOPCI.barIndex) != nil
                return (space.barPlace(VirtIOPCI.barIndex), isDecoding)
            }
            guard place != wiring.registers, !control.isRetired else { return false }
            new = isDecoding ? place : nil
            old = wiring.moveRegisters(to: new)
            return old != nil || new != nil
        } _: {
            if let old { control.plug.memoryBus.detach(at: old.start.rawValue) }
            guard let new else { return }
            do {
                try control.plug.memoryBus.attach(self, at: new.start.rawValue, count: new.count)
            } catch {
                // The guest put the BAR over something else: it answers nowhere until moved again.
                _ = wiring.moveRegisters(to: nil)
                throw error
            }
        }
    }
}

/// The interrupts and doorbells of a function: MSI-X vectors, and addresses in its BAR.
final class PCIWiring: TransportWiring {
    /// Bit 1 of the interrupt status (4.1.4.5). Queues' bit 0 is for functions without MSI-X.
    private static let configurationBit: UInt8 = 2

    let msix: MSIX
    private let status = Atomic<UInt8>(0)
    /// Where the BAR answers on the memory bus at present.
    private let place = Mutex<GuestRange?>(nil)

    init(msix: MSIX) {
        self.msix = msix
    }

    func interrupt(of queue: BasicFacilities.Queue) -> any QueueInterrupt {
        VectorInterrupt(msix: msix, vector: queue.vector)
    }

    func configurationChanged(vector: UInt16?) {
        status.bitwiseOr(Self.configurationBit, ordering: .acquiringAndReleasing)
        if let vector { msix.signal(vector) }
    }

    func reset() { status.store(0, ordering: .releasing) }

    /// The driver reads the interrupt status and thereby acknowledges it.
    func takeInterruptStatus() -> UInt8 { status.exchange(0, ordering: .acquiringAndReleasing) }

    var registers: GuestRange? { place.withLock { $0 } }

    /// Returns where the registers have been.
    func moveRegisters(to range: GuestRange?) -> GuestRange? {
        place.withLock { place in
            defer { place = range }
            return place
        }
    }

    func doorbell(ofQueue index: Int) -> Doorbell? {
        let offset = VirtIOPCI.notifyOffset + UInt64(index) * VirtIOPCI.notifyMultiplier
        return registers?.start.advanced(by: offset).map { Doorbell(address: $0) }
    }
}

/// One queue's interrupt: an MSI-X vector.
private final class VectorInterrupt: QueueInterrupt {
    private let msix: MSIX
    private let vector: UInt16

    init(msix: MSIX, vector: UInt16) {
        self.msix = msix
        self.vector = vector
    }

    func signal() { msix.signal(vector) }
    func signal(through sink: any EventSink) { msix.signal(vector, through: sink) }
}
