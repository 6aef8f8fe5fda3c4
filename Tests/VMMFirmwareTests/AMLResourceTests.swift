import Testing
import VMMBase

@testable import VMMFirmware

@Suite("AMLResource")
struct AMLResourceTests {
    @Test("a template ends with the end tag")
    func template() {
        #expect(AML.resources([]).bytes == [0x11, 0x05, 0x0a, 0x02, 0x79, 0x00])
    }

    @Test("bus numbers are a word descriptor of type 2")
    func busNumbers() {
        #expect(
            AMLResource.busNumbers(0...0).bytes
                == [0x88, 0x0d, 0x00, 0x02, 0x0c, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    }

    @Test("a port window is a word descriptor of type 1")
    func portWindow() {
        #expect(
            AMLResource.portWindow(0xd00...0xffff).bytes
                == [0x88, 0x0d, 0x00, 0x01, 0x0c, 0x03, 0, 0, 0, 0x0d, 0xff, 0xff, 0, 0, 0, 0xf3])
    }

    @Test("a memory window below 4 GiB is a double word descriptor")
    func lowMemoryWindow() {
        #expect(
            AMLResource.memoryWindow(GuestMemoryLayout.mmio32Hole).bytes
                == [0x87, 0x17, 0x00, 0x00, 0x0c, 0x01] + bytes(UInt32(0))
                + bytes(UInt32(0xc000_0000)) + bytes(UInt32(0xe7ff_ffff)) + bytes(UInt32(0))
                + bytes(UInt32(0x2800_0000)))
    }

    @Test("a memory window that ends above 4 GiB is a quad word descriptor")
    func highMemoryWindow() throws {
        let window = try #require(
            GuestRange(start: GuestAddress(0x1_0000_0000), count: 0x8_0000_0000))
        #expect(
            AMLResource.memoryWindow(window).bytes
                == [0x8a, 0x2b, 0x00, 0x00, 0x0c, 0x01] + bytes(UInt64(0))
                + bytes(UInt64(0x1_0000_0000)) + bytes(UInt64(0x8_ffff_ffff)) + bytes(UInt64(0))
                + bytes(UInt64(0x8_0000_0000)))
    }

    @Test("a device's ports, memory and interrupts")
    func deviceResources() {
        #expect(
            AMLResource.ports(0x3f8, count: 8).bytes
                == [0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08])
        #expect(
            AMLResource.fixedMemory(GuestMemoryLayout.ecam).bytes
                == [0x86, 0x09, 0x00, 0x01] + bytes(UInt32(0xe800_0000))
                + bytes(UInt32(0x1000_0000)))
        #expect(
            AMLResource.interrupt(13, isLevel: true).bytes
                == [0x89, 0x06, 0x00, 0x01, 0x01, 13, 0, 0, 0])
        #expect(
            AMLResource.interrupt(4, isLevel: false).bytes
                == [0x89, 0x06, 0x00, 0x03, 0x01, 4, 0, 0, 0])
    }
}
