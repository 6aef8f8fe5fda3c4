import Synchronization
import VMMBase

/// The host bridge of one PCI segment with a single bus: 32 devices, function 0 each, reached
/// through ECAM and, where the machine attaches them, ports 0xcf8 to 0xcff. Any thread.
package final class PCIRoot: Sendable {
    package static let deviceCount = 32
    /// ECAM gives each function 4 KiB, so a bus takes 1 MiB (PCI Firmware 3.2, 4.1).
    package static let ecamByteCount: UInt64 = 1 << 20

    /// A device number that somebody has.
    private struct Place {
        /// nil when the guest does not see it any more.
        var function: (any PCIFunction)?
    }

    private let places = Mutex<[Place?]>(Array(repeating: nil, count: deviceCount))
    /// The register that port 0xcf8 selects.
    private let selected = Mutex<UInt32>(0)
    package let segment: UInt16

    /// Segment 0 has the host bridge's own function, as device 0.
    package init(segment: UInt16 = 0) {
        self.segment = segment
        if segment == 0 { places.withLock { $0[0] = Place(function: HostBridge()) } }
    }

    /// Puts a function at the lowest free device number, or at `device`; nil when it is taken or
    /// none is left.
    package func attach(_ function: any PCIFunction, device: UInt8? = nil) -> PCIAddress? {
        places.withLock { places in
            let wanted = device.map { Int($0) } ?? places.firstIndex { $0 == nil }
            guard let index = wanted, index < places.count, places[index] == nil else {
                return nil
            }
            places[index] = Place(function: function)
            return PCIAddress(segment: segment, device: UInt8(index))
        }
    }

    /// Whether a device number is somebody's, seen by the guest or not.
    package func isTaken(device: UInt8) -> Bool {
        places.withLock { $0.indices.contains(Int(device)) && $0[Int(device)] != nil }
    }

    /// Makes a function answer no more; its device number stays taken until `detach`.
    package func hide(device: UInt8) {
        places.withLock { places in
            guard places.indices.contains(Int(device)) else { return }
            places[Int(device)]?.function = nil
        }
    }

    /// Takes a function off the bus.
    package func detach(device: UInt8) {
        places.withLock { places in
            guard places.indices.contains(Int(device)) else { return }
            places[Int(device)] = nil
        }
    }

    /// Takes all functions off the bus, which also lets go of what they are plugged into.
    package func detachAll() {
        places.withLock { places in
            for index in places.indices { places[index] = nil }
        }
    }

    fileprivate func function(_ device: Int) -> (any PCIFunction)? {
        places.withLock { device < $0.count ? $0[device]?.function : nil }
    }

    /// The ECAM window, for the memory bus.
    package var ecam: any BusDevice { ECAM(root: self) }
    /// Ports 0xcf8 to 0xcff, for the port bus.
    package var configurationPorts: any BusDevice { ConfigurationPorts(root: self) }

    private final class ECAM: BusDevice {
        let root: PCIRoot
        init(root: PCIRoot) { self.root = root }

        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            guard let (function, register) = target(offset, width) else { return width.allOnes }
            return UInt64(function.readConfiguration(at: register, width: width))
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            guard let (function, register) = target(offset, width) else { return }
            function.writeConfiguration(
                at: register, width: width, value: UInt32(truncatingIfNeeded: value))
        }

        /// Bits 15-19 of the offset are the device, 12-14 the function, 0-11 the register.
        private func target(_ offset: UInt64, _ width: AccessWidth) -> (any PCIFunction, Int)? {
            guard width != .quadWord, (offset >> 12) & 7 == 0,
                let function = root.function(Int(offset >> 15))
            else { return nil }
            return (function, Int(offset & 0xfff))
        }
    }

    private final class ConfigurationPorts: BusDevice {
        let root: PCIRoot
        init(root: PCIRoot) { self.root = root }

        func read(offset: UInt64, width: AccessWidth) -> UInt64 {
            if offset < 4 {
                guard offset == 0, width == .doubleWord else { return width.allOnes }
                return UInt64(root.selected.withLock { $0 })
            }
            guard let (function, register) = target(offset, width) else { return width.allOnes }
            return UInt64(function.readConfiguration(at: register, width: width))
        }

        func write(offset: UInt64, width: AccessWidth, value: UInt64) {
            if offset < 4 {
                guard offset == 0, width == .doubleWord else { return }
                root.selected.withLock { $0 = UInt32(truncatingIfNeeded: value) }
                return
            }
            guard let (function, register) = target(offset, width) else { return }
            function.writeConfiguration(
                at: register, width: width, value: UInt32(truncatingIfNeeded: value))
        }

        /// Bit 31 enables; 16-23 bus, 11-15 device, 8-10 function, 2-7 register.
        private func target(_ offset: UInt64, _ width: AccessWidth) -> (any PCIFunction, Int)? {
            let address = root.selected.withLock { $0 }
            let isBusAndFunctionZero = address & 0x00ff_0700 == 0
            guard width != .quadWord, address >> 31 == 1, isBusAndFunctionZero,
                let function = root.function(Int(address >> 11) & 31)
            else { return nil }
            return (function, Int(address & 0xfc) + Int(offset & 3))
        }
    }
}

/// The bridge's own function, so that guests find a bus at all.
private final class HostBridge: PCIFunction {
    private let configuration = PCIConfiguration(
        PCIConfiguration.Identity(
            // The ids that Cloud Hypervisor gives its host bridge.
            vendor: 0x8086, device: 0x0d57, classCode: (base: 6, sub: 0, interface: 0)))

    func readConfiguration(at offset: Int, width: AccessWidth) -> UInt32 {
        configuration.read(at: offset, width: width)
    }

    func writeConfiguration(at offset: Int, width: AccessWidth, value: UInt32) {}
}
