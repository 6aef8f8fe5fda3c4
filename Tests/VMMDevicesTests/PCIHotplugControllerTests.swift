import Synchronization
import Testing
import VMMBase
import VMMBus
import VMMDevices

@Suite("PCIHotplugController")
struct PCIHotplugControllerTests {
    private enum Register {
        static let up: UInt64 = 0
        static let down: UInt64 = 4
        static let eject: UInt64 = 8
        static let segment: UInt64 = 12
    }

    /// What the guest gave back, as the machine hears of it.
    private final class Ejections: Sendable {
        private let all = Mutex<[String]>([])
        func add(_ address: PCIAddress) { all.withLock { $0.append("\(address)") } }
        var told: [String] { all.withLock { $0 } }
    }

    private let ejections = Ejections()
    private let controller: PCIHotplugController

    init() {
        controller = PCIHotplugController(segmentCount: 3) { [ejections] in ejections.add($0) }
    }

    private func read(_ register: UInt64) -> UInt64 {
        controller.read(offset: register, width: .doubleWord)
    }

    private func write(_ register: UInt64, _ value: UInt64) {
        controller.write(offset: register, width: .doubleWord, value: value)
    }

    @Test("devices that have come, and that are to go, are told once")
    func told() {
        controller.add(PCIAddress(device: 5))
        controller.add(PCIAddress(device: 31))
        controller.requestRemoval(of: PCIAddress(device: 5))
        #expect(read(Register.up) == 1 << 5 | 1 << 31)
        #expect(read(Register.up) == 0)
        #expect(read(Register.down) == 1 << 5)
        #expect(read(Register.down) == 0)
    }

    @Test("each segment has its own devices")
    func segments() {
        controller.add(PCIAddress(segment: 2, device: 0))
        #expect(read(Register.segment) == 0 && read(Register.up) == 0)
        write(Register.segment, 2)
        #expect(read(Register.segment) == 2 && read(Register.up) == 1)
        write(Register.segment, 3)
        write(Register.segment, 0xffff_ffff)
        #expect(read(Register.segment) == 2)
    }

    @Test("the guest gives back what it was asked for, once, and nothing else")
    func ejecting() {
        controller.add(PCIAddress(segment: 1, device: 4))
        controller.requestRemoval(of: PCIAddress(segment: 1, device: 7))
        controller.requestRemoval(of: PCIAddress(segment: 1, device: 9))
        write(Register.eject, 0xffff_ffff)
        write(Register.segment, 1)
        write(Register.eject, 1 << 4 | 1 << 7)
        write(Register.eject, 0xffff_ffff)
        write(Register.eject, 0xffff_ffff)
        #expect(ejections.told == ["0001:00:07.0", "0001:00:09.0"])
        // What was given back before it was told needs no telling.
        #expect(read(Register.down) == 0 && read(Register.up) == 1 << 4)
    }

    @Test("a guest that did not listen is told again")
    func again() {
        controller.requestRemoval(of: PCIAddress(device: 7))
        #expect(read(Register.down) == 1 << 7)
        controller.requestRemoval(of: PCIAddress(device: 7))
        #expect(read(Register.down) == 1 << 7)
        write(Register.eject, 1 << 7)
        #expect(ejections.told == ["0000:00:07.0"])
    }

    @Test("a device does not go by what was said of the one before it in its place")
    func newcomer() {
        controller.requestRemoval(of: PCIAddress(device: 7))
        write(Register.eject, 1 << 7)
        // The user asks again before the machine has heard that it is gone.
        controller.requestRemoval(of: PCIAddress(device: 7))
        controller.add(PCIAddress(device: 7))
        #expect(read(Register.up) == 1 << 7 && read(Register.down) == 0)
        write(Register.eject, 1 << 7)
        #expect(ejections.told == ["0000:00:07.0"])
    }

    @Test("any access is answered", arguments: AccessWidth.allCases)
    func hostile(width: AccessWidth) {
        controller.requestRemoval(of: PCIAddress(device: 1))
        for offset in UInt64(0)..<20 {
            controller.write(offset: offset, width: width, value: .max)
            _ = controller.read(offset: offset, width: width)
        }
        #expect(ejections.told == (width == .doubleWord ? ["0000:00:01.0"] : []))
    }
}
