import VMMBase
import VMMBus
import VMMDevices
import VMMHost
import VMMTestSupport
import VMMVirtIO

/// The input is what a guest does to a PCI bus: configuration space by both ways, capabilities,
/// BARs that are moved under a driver, functions that go. A panic device stands beside the one of
/// virtio.
enum PCITarget: FuzzTarget {
    static let name = "pci"

    private enum Step: UInt8, CaseIterable {
        case ecamWrite, ecamRead, portWrite, portRead, drive, memory, hide
    }

    private static let stepLimit = 128
    private static let panicPlace = GuestAddress(0xe000_0000)
    /// The command register with memory decoding on, and the BAR where the rig has it.
    private static let home: [(register: UInt64, value: UInt64)] = [
        (0x10, TransportRig.address & 0xffff_ffff), (0x14, TransportRig.address >> 32), (0x04, 2),
    ]

    /// Registers of the configuration space, and values that move a BAR.
    static let words =
        [0x04, 0x10, 0x14, 0x34, 0x40, 0x54, 0x64, 0x84, 0x98].map {
            FuzzInput.bytes(UInt16($0))
        } + [FuzzInput.bytes(UInt32.max), FuzzInput.bytes(UInt32(0xc000_0000)), [2]]

    static func seeds() -> [[UInt8]] {
        let write = { (register: UInt16, value: UInt64) in
            [Step.ecamWrite.rawValue] + FuzzInput.bytes(register) + [2] + FuzzInput.bytes(value)
        }
        let select = [Step.portWrite.rawValue, 0, 2] + FuzzInput.bytes(UInt64(0x8000_0810))
        return [
            [0] + write(0x04, 0) + write(0x10, UInt64(UInt32.max)) + write(0x10, 0xd000_0000)
                + write(0x14, 0) + write(0x04, 6),
            [1] + select + [Step.portRead.rawValue, 4, 2, Step.hide.rawValue],
            // The panic device: memory decoding on, and both events to its register.
            [0] + write(0x4004, 2) + [Step.memory.rawValue]
                + FuzzInput.bytes(panicPlace.rawValue) + [0] + FuzzInput.bytes(UInt64(3)),
        ]
    }

    static func run(_ input: FuzzInput) {
        var input = input
        do {
            let rig = try RigDevice.make(from: &input, on: .pci)
            defer { rig.end() }
            guard let function = rig.function else { return }
            let root = PCIRoot()
            let panic = PanicDevice(
                on: rig.bus, at: panicPlace, limiter: LogLimiter(clock: SystemClock())
            ) { event in
                precondition(event == "panic" || event == "crash_loaded", "what there is to tell")
            }
            defer { panic.unplug() }
            guard let place = root.attach(function), let other = root.attach(panic) else { return }
            let devices = (place.device, other.device)
            for _ in 0..<stepLimit where !input.isEmpty { step(&input, rig, root, devices) }
            // Or it may lie where the function's BAR goes.
            panic.unplug()
            for (register, value) in home {
                function.writeConfiguration(
                    at: Int(register), width: .doubleWord, value: UInt32(value))
            }
            precondition(rig.revival().isEmpty, "a function works again where it was")
        } catch {
            return
        }
    }

    private static func step(
        _ input: inout FuzzInput, _ rig: TransportRig, _ root: PCIRoot,
        _ devices: (UInt8, UInt8)
    ) {
        switch Step.allCases[Int(input.next(UInt8.self)) % Step.allCases.count] {
        case .ecamWrite:
            let (offset, width) = ecamPlace(&input, devices)
            root.ecam.write(offset: offset, width: width, value: input.next())
        case .ecamRead:
            let (offset, width) = ecamPlace(&input, devices)
            _ = root.ecam.read(offset: offset, width: width)
        case .portWrite:
            let offset = UInt64(input.next(UInt8.self) % 8)
            root.configurationPorts.write(offset: offset, width: width(&input), value: input.next())
        case .portRead:
            let offset = UInt64(input.next(UInt8.self) % 8)
            _ = root.configurationPorts.read(offset: offset, width: width(&input))
        case .drive: DriverStep.take(from: &input, rig)
        case .memory:
            // Wherever the BAR may be now.
            let address = input.next(UInt64.self)
            rig.bus.write(address: address, width: width(&input), value: input.next())
            _ = rig.bus.read(address: address, width: .doubleWord)
        case .hide:
            root.hide(device: input.next(UInt8.self) & 1 == 0 ? devices.0 : devices.1)
        }
    }

    /// Mostly the functions' own 4 KiB.
    private static func ecamPlace(
        _ input: inout FuzzInput, _ devices: (UInt8, UInt8)
    ) -> (offset: UInt64, width: AccessWidth) {
        let word = input.next(UInt16.self)
        let device = word & 0x4000 == 0 ? devices.0 : devices.1
        let base = word & 0x8000 == 0 ? UInt64(device) << 15 : UInt64(word & 0x7000) << 5
        return (base + UInt64(word & 0xfff), width(&input))
    }

    private static func width(_ input: inout FuzzInput) -> AccessWidth {
        AccessWidth.allCases[Int(input.next(UInt8.self)) % AccessWidth.allCases.count]
    }
}
