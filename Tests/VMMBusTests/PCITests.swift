import Testing
import VMMBase
import VMMBus

@Suite("PCIConfiguration")
struct PCIConfigurationTests {
    private func sample() -> PCIConfiguration {
        var space = PCIConfiguration(
            .init(vendor: 0x1af4, device: 0x1042, classCode: (base: 1, sub: 0x80, interface: 0)))
        space.addBAR(0, size: 0x10000, address: GuestAddress(0x8_0000_0000))
        space.write(at: 0x04, width: .word, value: 2)
        return space
    }

    @Test("writing all ones to a BAR reads back its size")
    func sizing() {
        var space = sample()

        space.write(at: 0x10, width: .doubleWord, value: 0xffff_ffff)
        space.write(at: 0x14, width: .doubleWord, value: 0xffff_ffff)

        // 64 KiB, 64-bit memory: the low 16 bits are zero but for the type.
        #expect(space.read(at: 0x10, width: .doubleWord) == 0xffff_0004)
        #expect(space.read(at: 0x14, width: .doubleWord) == 0xffff_ffff)
    }

    @Test("a BAR moves with what the guest writes, and answers nowhere while decoding is off")
    func moving() {
        var space = sample()

        space.write(at: 0x10, width: .doubleWord, value: 0xc001_2345)
        space.write(at: 0x14, width: .doubleWord, value: 0)
        let moved = space.barRange(0)
        space.write(at: 0x04, width: .word, value: 0)

        #expect(moved?.start == GuestAddress(0xc001_0000))
        #expect(space.barRange(0) == nil)
    }

    @Test("capabilities are chained in order, and only their writable bits change")
    func capabilities() {
        var space = sample()
        let first = space.addCapability(id: 9, body: [1, 2, 3])
        let second = space.addCapability(id: 0x11, body: [0, 0], writableBody: [0, 0xc0])

        space.write(at: second + 2, width: .word, value: 0xffff)
        space.write(at: first, width: .doubleWord, value: 0xffff_ffff)

        #expect(space.read(at: 0x34, width: .byte) == UInt32(first))
        #expect(space.read(at: first + 1, width: .byte) == UInt32(second))
        #expect(space.read(at: second + 2, width: .word) == 0xc000)
        #expect(space.read(at: first, width: .byte) == 9)
    }

    @Test("every offset and width can be read and written", arguments: AccessWidth.allCases)
    func everyAccess(width: AccessWidth) {
        var space = sample()

        for offset in -8...4104 {
            space.write(at: offset, width: width, value: .max)
            _ = space.read(at: offset, width: width)
        }

        #expect(space.read(at: 0, width: .word) == 0x1af4)
    }
}

@Suite("PCIRoot")
struct PCIRootTests {
    private final class Function: PCIFunction {
        func readConfiguration(at offset: Int, width: AccessWidth) -> UInt32 { UInt32(offset) }
        func writeConfiguration(at offset: Int, width: AccessWidth, value: UInt32) {}
    }

    @Test("functions take the places that were asked for, else the lowest free")
    func places() {
        let root = PCIRoot()

        #expect(root.attach(Function(), device: 1)?.description == "0000:00:01.0")
        #expect(root.attach(Function())?.device == 2)
        #expect(root.attach(Function(), device: 1) == nil)
        #expect(root.attach(Function(), device: 32) == nil)
        #expect(root.attach(Function(), device: 0) == nil)
    }

    @Test("a function that is hidden answers no more, and its place is free when it is detached")
    func leaving() {
        let root = PCIRoot()
        _ = root.attach(Function())
        let identity = { root.ecam.read(offset: 1 << 15, width: .doubleWord) }
        #expect(identity() == 0)
        root.hide(device: 1)
        #expect(identity() == 0xffff_ffff)
        #expect(root.attach(Function())?.device == 2)
        root.detach(device: 1)
        #expect(root.attach(Function())?.device == 1)
        #expect(identity() == 0)
        root.hide(device: 77)
        root.detach(device: 77)
    }

    @Test("segments beside the first have 32 places and no function of their own")
    func otherSegments() {
        let root = PCIRoot(segment: 0x5f)
        #expect(root.attach(Function())?.description == "005f:00:00.0")
        for _ in 1..<32 { #expect(root.attach(Function()) != nil) }
        #expect(root.attach(Function()) == nil)
    }

    @Test("ECAM and the ports reach the same register")
    func access() {
        let root = PCIRoot()
        _ = root.attach(Function(), device: 3)
        let (ecam, ports) = (root.ecam, root.configurationPorts)

        ports.write(offset: 0, width: .doubleWord, value: 0x8000_1840)

        #expect(ports.read(offset: 0, width: .doubleWord) == 0x8000_1840)
        #expect(ports.read(offset: 6, width: .word) == 0x42)
        #expect(ecam.read(offset: 3 << 15 | 0x42, width: .word) == 0x42)
    }

    @Test("functions, buses and devices that do not exist read as all ones")
    func absent() {
        let root = PCIRoot()
        let ports = root.configurationPorts

        ports.write(offset: 0, width: .doubleWord, value: 0x8001_0000)
        #expect(ports.read(offset: 4, width: .doubleWord) == 0xffff_ffff)
        ports.write(offset: 0, width: .doubleWord, value: 0x8000_0100)
        #expect(ports.read(offset: 4, width: .doubleWord) == 0xffff_ffff)
        ports.write(offset: 0, width: .doubleWord, value: 0)
        #expect(ports.read(offset: 4, width: .byte) == 0xff)
        #expect(root.ecam.read(offset: 9 << 15, width: .doubleWord) == 0xffff_ffff)
        #expect(root.ecam.read(offset: 0, width: .doubleWord) == 0x0d57_8086)
    }
}
