import Foundation
import Synchronization
import Testing
import VMMBase
import VMMBus
import VMMDevices
import VMMHost
import VMMTestSupport
import VMMVirtIO

@testable import VMMMachine

/// Vectors that tell how many have a route.
private final class CountingInterrupts: MessageInterruptSource {
    private final class Vector: MessageInterrupt {
        private let source: CountingInterrupts
        private let isRouted = Mutex(false)

        init(_ source: CountingInterrupts) { self.source = source }
        func signal() {}
        func route(_ message: InterruptMessage?) { set(message != nil) }
        func release() { set(false) }

        private func set(_ value: Bool) {
            let before = isRouted.withLock { state in
                defer { state = value }
                return state
            }
            if before != value { source.count.withLock { $0 += value ? 1 : -1 } }
        }
    }

    private let count = Mutex(0)
    var routes: Int { count.withLock { $0 } }
    func makeMessageInterrupt() -> any MessageInterrupt { Vector(self) }
}

private struct NoDoorbells: DoorbellBinder {
    func bind(_ event: EventFD, to doorbell: Doorbell) {}
    func unbind(_ event: EventFD, from doorbell: Doorbell) {}
}

/// The PCI side of a machine without KVM, and a guest that uses what comes and lets go of what is
/// to go.
private final class HotplugRig {
    let directory: TemporaryDirectory
    let loop: EventLoop
    let memoryBus = Bus()
    let interrupts = CountingInterrupts()
    let roots: [PCIRoot]
    let backplane: PCIBackplane
    let devices: DeviceSet
    let controller: PCIHotplugController
    var configuration = MachineConfiguration()
    private let ejected: Mailbox

    private final class Mailbox: Sendable {
        let addresses = Mutex<[PCIAddress]>([])
    }

    static let limits = MachineConfiguration.HostLimits(
        maximumVCPUs: 4, physicalAddressBits: 46)

    init(segments count: Int = 1) throws {
        directory = try TemporaryDirectory()
        loop = try EventLoop()
        configuration.kernel = "/k"
        for (option, text) in [
            ("--serial", "off"), ("--console", "off"),
            ("--platform", "num_pci_segments=\(count)"),
        ] {
            try configuration.add(OptionText(text, option: option))
        }
        let outline = try configuration.validate(Self.limits)
        devices = try DeviceSet(outline, loop: loop, clock: ManualClock())
        roots = outline.segments.map { PCIRoot(segment: $0.number) }
        let range = try #require(GuestRange(start: GuestAddress(0), count: 1 << 20))
        let plug = TransportPlug(
            memoryBus: memoryBus, doorbells: NoDoorbells(), loop: loop,
            memory: try GuestMemory(ranges: [range], usesHugePages: false),
            limiter: LogLimiter(clock: ManualClock()))
        backplane = PCIBackplane(
            outline.segments, roots: roots, plug: plug, interrupts: interrupts)
        let ejected = Mailbox()
        self.ejected = ejected
        controller = PCIHotplugController(segmentCount: count) { [roots] address in
            roots[Int(address.segment)].hide(device: address.device)
            ejected.addresses.withLock { $0.append(address) }
        }
        for device in devices.virtIO {
            devices.remember(try backplane.plug(device), of: device.id)
        }
    }

    /// What `BootedMachine` does for a request.
    func add(_ addition: DeviceAddition) throws -> PluggedDevice {
        try configuration.add(addition)
        let outline = try configuration.validate(Self.limits)
        let known = Set(devices.virtIO.map(\.id))
        let added = try #require(
            outline.devices.first {
                type(of: $0.spec).isHotpluggable && !known.contains($0.id)
            })
        try devices.add(devices.opener(of: added)())
        let address = try backplane.plug(try #require(devices.virtIO.last))
        configuration.takeNames(outline)
        controller.add(address)
        return PluggedDevice(id: added.id, address: address)
    }

    func addDisk(_ more: String = "") throws -> PluggedDevice {
        let path = directory.file("disk")
        if !FileManager.default.fileExists(atPath: path) {
            try Data(count: 4096).write(to: URL(filePath: path))
        }
        let json = #"{"path":"\#(path)","image_type":"Raw","readonly":true\#(more)}"#
        return try add(.disk(JSONParser.parse(Array(json.utf8)), []))
    }

    /// The guest sees the device, decodes its registers and lets it interrupt.
    func guestTakes(_ device: PluggedDevice) -> UInt64 {
        let ecam = roots[Int(device.address.segment)].ecam
        let function = UInt64(device.address.device) << 15
        controller.write(offset: 12, width: .doubleWord, value: UInt64(device.address.segment))
        let news = controller.read(offset: 0, width: .doubleWord)
        #expect(news == 1 << UInt64(device.address.device))
        ecam.write(offset: function | 4, width: .word, value: 2)
        let bar =
            ecam.read(offset: function | 0x10, width: .doubleWord) & ~0xf
            | ecam.read(offset: function | 0x14, width: .doubleWord) << 32
        // MSI-X is the first capability: message address, data, and no mask; then on.
        let capability = ecam.read(offset: function | 0x34, width: .byte)
        for (offset, value) in [(0, 0xfee0_0000), (8, 0x21), (12, 0)] as [(UInt64, UInt64)] {
            memoryBus.write(address: bar + 0x8000 + offset, width: .doubleWord, value: value)
        }
        ecam.write(offset: function | capability + 2, width: .word, value: 0x8000)
        return bar
    }

    /// The guest lets go of the device, which is asked for, and then it ends.
    func remove(_ device: PluggedDevice) throws {
        controller.requestRemoval(of: device.address)
        controller.write(offset: 12, width: .doubleWord, value: UInt64(device.address.segment))
        let bits = controller.read(offset: 4, width: .doubleWord)
        controller.write(offset: 8, width: .doubleWord, value: bits)
        let address = try #require(ejected.addresses.withLock { $0.popLast() })
        #expect(address == device.address && backplane.device(at: address) == device.id)
        backplane.remove(device.id)
        devices.take(device.id)?.finish()
        let isForgotten = configuration.removeDevice(device.id)
        #expect(isForgotten)
    }

    /// How often the disk's file is open.
    func openCount() throws -> Int {
        let own = "/proc/self/fd/"
        return try FileManager.default.contentsOfDirectory(atPath: own).count { name in
            let target = try? FileManager.default.destinationOfSymbolicLink(atPath: own + name)
            return target == directory.file("disk")
        }
    }
}

@Suite("PCIBackplane")
struct PCIBackplaneTests {
    @Test("500 devices come and go, and names, places, addresses and files come back")
    func cycles() throws {
        let rig = try HotplugRig(segments: 2)
        let more = ["", #","pci_segment":1,"pci_device_id":9"#]
        var seen: Set<String> = []
        for cycle in 0..<500 {
            let device = try rig.addDisk(more[cycle % 2])
            let bar = rig.guestTakes(device)
            #expect(rig.interrupts.routes == 1)
            seen.insert("\(device.id) \(device.address) \(bar)")
            try rig.remove(device)
            #expect(rig.memoryBus.read(address: bar, width: .doubleWord) == 0xffff_ffff)
        }
        // Two different places, always the same name.
        #expect(seen.count == 2 && seen.allSatisfy { $0.hasPrefix("_disk0 ") }, "\(seen)")
        #expect(rig.interrupts.routes == 0)
        #expect(try rig.openCount() == 0)
        #expect(rig.devices.virtIO.map(\.id) == ["__rng"])
        #expect(rig.configuration.devices.count == 2)
    }

    @Test("a bus takes 31 devices, and says so when there are more")
    func full() throws {
        let rig = try HotplugRig()
        let disks = try (0..<30).map { _ in try rig.addDisk() }
        #expect(Set(disks.map(\.address)).count == 30)
        let error = #expect(throws: MachineError.self) { try rig.addDisk() }
        #expect(error?.description == "no place for _disk30: PCI segment 0 is full")
        try rig.remove(disks[7])
        #expect(rig.backplane.device(at: disks[7].address) == nil)
    }

    private static func base(_ node: JSONValue?) -> JSONValue? {
        guard case .array(let resources)? = node?["resources"] else { return nil }
        return resources.first?["PciBar"]?["base"]
    }

    @Test("the device tree says where a device is, and where the guest put its registers")
    func tree() throws {
        let rig = try HotplugRig(segments: 2)
        let disk = try rig.addDisk(#","pci_segment":1"#)
        let json = DeviceTree(entries: rig.backplane.tree, hasSerial: true).json
        let transport = json["_virtio-pci-_disk0"]
        #expect(transport?["pci_bdf"] == "0001:00:00.0" && transport?["children"] == ["_disk0"])
        #expect(json["_disk0"]?["parent"] == "_virtio-pci-_disk0")
        #expect(
            json["__serial"]?["resources"] == [
                ["PioAddressRange": ["base": 1016, "size": 8]], ["LegacyIrq": 4],
            ])
        let bar = rig.guestTakes(disk)
        #expect(Self.base(transport) == .number("\(bar)"))

        let moved = bar + 0x10_0000
        rig.roots[1].ecam.write(
            offset: UInt64(disk.address.device) << 15 | 0x10, width: .doubleWord,
            value: moved & 0xffff_ffff)
        let after = DeviceTree(entries: rig.backplane.tree).json["_virtio-pci-_disk0"]
        #expect(Self.base(after) == .number("\(moved)"))
        try rig.remove(disk)
        #expect(DeviceTree(entries: rig.backplane.tree).json["_disk0"] == nil)
    }

    @Test("a place that somebody has is told")
    func taken() throws {
        let rig = try HotplugRig()
        // The entropy source has number 1.
        let error = #expect(throws: MachineError.self) { try rig.addDisk(#","pci_device_id":1"#) }
        #expect(
            error?.description == "device number 1 of PCI segment 0, which _disk0 wants, is taken")
        #expect(try rig.addDisk(#","pci_device_id":31"#).address.device == 31)
        #expect(rig.backplane.isTaken(segment: 0, device: 31))
        #expect(!rig.backplane.isTaken(segment: 0, device: 30))
        #expect(!rig.backplane.isTaken(segment: 9, device: 1))
    }
}
