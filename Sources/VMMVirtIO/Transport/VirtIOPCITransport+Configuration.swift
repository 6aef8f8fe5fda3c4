import Synchronization
import VMMBase
import VMMBus
import VMMHost

/// The function's configuration space: identity, BAR and capabilities. vCPU threads.
extension VirtIOPCITransport: PCIFunction {
    /// Builds the space of a device. Each access to it is an exit, and Linux walks the list of
    /// capabilities a dozen times: MSI-X, which it looks for by name, comes first, and what a
    /// device does not have is not listed. Decoding is off as after a reset, so that the guest
    /// does not turn it off and on for each BAR it sizes.
    static func makeConfiguration(
        _ traits: DeviceControl.Traits, barAddress: GuestAddress
    ) -> (configuration: PCIConfiguration, access: Int, msix: Int) {
        let type = traits.type
        var identity = PCIConfiguration.Identity(
            vendor: VirtIOPCI.vendor, device: VirtIOPCI.firstDeviceID + type.rawValue,
            classCode: classCode(type))
        identity.revision = 1
        identity.subsystemVendor = VirtIOPCI.vendor
        identity.subsystem = VirtIOPCI.firstDeviceID + type.rawValue
        var space = PCIConfiguration(identity)
        space.addBAR(VirtIOPCI.barIndex, size: VirtIOPCI.barSize, address: barAddress)
        let msix = addMSIX(vectors: traits.vectorCount, to: &space)
        add(.common, VirtIOPCI.commonOffset, VirtIOPCI.commonCount, to: &space)
        add(.interruptStatus, VirtIOPCI.interruptStatusOffset, 1, to: &space)
        if !traits.configuration.isEmpty {
            add(
                .device, VirtIOPCI.deviceConfigurationOffset, VirtIOPCI.deviceConfigurationCount,
                to: &space)
        }
        var multiplier = ByteBuilder()
        multiplier.append(UInt32(VirtIOPCI.notifyMultiplier))
        add(
            .notify, VirtIOPCI.notifyOffset, VirtIOPCI.notifyCount, to: &space,
            extra: multiplier.bytes)
        // Bar, offset, length and the four data bytes are the driver's to write (4.1.4.9).
        let access = add(
            .pciAccess, 0, 0, to: &space, extra: [0, 0, 0, 0],
            writable: [0, 0, 0xff, 0, 0, 0] + Array(repeating: 0xff, count: 12))
        return (space, access, msix)
    }

    private static func addMSIX(vectors: Int, to space: inout PCIConfiguration) -> Int {
        var body = ByteBuilder()
        body.append(UInt16(vectors - 1))
        body.append(UInt32(VirtIOPCI.vectorTableOffset) | UInt32(VirtIOPCI.barIndex))
        body.append(UInt32(VirtIOPCI.pendingOffset) | UInt32(VirtIOPCI.barIndex))
        // Message Control: bit 15 enables, bit 14 masks all vectors.
        return space.addCapability(
            id: VirtIOPCI.msixCapability, body: body.bytes, writableBody: [0, 0xc0])
    }

    @discardableResult
    private static func add(
        _ structure: VirtIOPCI.Structure, _ offset: UInt64, _ count: UInt64,
        to space: inout PCIConfiguration, extra: [UInt8] = [], writable: [UInt8] = []
    ) -> Int {
        var body = ByteBuilder()
        body.append(UInt8(16 + extra.count))
        body.append(structure.rawValue)
        body.append(UInt8(VirtIOPCI.barIndex))
        body.appendZeros(3)
        body.append(UInt32(offset))
        body.append(UInt32(count))
        body.append(bytes: extra)
        return space.addCapability(
            id: VirtIOPCI.vendorCapability, body: body.bytes, writableBody: writable)
    }

    /// Network controllers and mass storage show as such; the rest is "other".
    private static func classCode(
        _ type: VirtIODeviceType
    ) -> (base: UInt8, sub: UInt8, interface: UInt8) {
        switch type {
        case .network: (2, 0, 0)
        case .block: (1, 0x80, 0)
        case .console, .entropy, .vsock, .watchdog: (0xff, 0, 0)
        }
    }

    package func readConfiguration(at offset: Int, width: AccessWidth) -> UInt32 {
        if let window = accessWindow(offset, width) {
            return UInt32(truncatingIfNeeded: read(offset: window.offset, width: window.width))
        }
        return space.withLock { $0.read(at: offset, width: width) }
    }

    package func writeConfiguration(at offset: Int, width: AccessWidth, value: UInt32) {
        let messageControl = space.withLock { space -> UInt8 in
            space.write(at: offset, width: width, value: value)
            return space.byte(at: msixCapability + 3)
        }
        if let window = accessWindow(offset, width) {
            write(offset: window.offset, width: window.width, value: UInt64(value))
        } else if offset <= msixCapability + 3, offset + width.byteCount > msixCapability + 2 {
            wiring.msix.setControl(
                enabled: messageControl & 0x80 != 0, functionMasked: messageControl & 0x40 != 0)
        } else if offset < 0x40 {
            do {
                try remap()
            } catch {
                control.plug.limiter.debug("\(id): BAR not mapped: \(error)")
            }
        }
    }

    /// What an access to the data bytes of the PCI-access capability reaches inside the BAR.
    private func accessWindow(
        _ offset: Int, _ width: AccessWidth
    ) -> (offset: UInt64, width: AccessWidth)? {
        guard offset == accessCapability + 16 else { return nil }
        return space.withLock { space in
            func word(_ at: Int) -> UInt64 {
                UInt64(space.read(at: accessCapability + at, width: .doubleWord))
            }
            let target = word(8)
            guard space.byte(at: accessCapability + 4) == UInt8(VirtIOPCI.barIndex),
                let chosen = AccessWidth(rawValue: UInt8(truncatingIfNeeded: word(12))),
                chosen.byteCount <= width.byteCount, target % UInt64(chosen.rawValue) == 0,
                target < VirtIOPCI.barSize
            else { return nil }
            return (target, chosen)
        }
    }
}
