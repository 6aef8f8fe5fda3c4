import Testing
import VMMBase

@testable import VMMFirmware

@Suite("PVHStartInfo")
struct PVHStartInfoTests {
    private func blobs(initramfs: GuestRange?, rsdp: GuestAddress?) throws -> [UInt64: [UInt8]] {
        let layout = try GuestMemoryLayout(ramBytes: 4 << 30, physicalAddressBits: 46)
        let info = PVHStartInfo(initramfs: initramfs, rsdp: rsdp, memoryMap: layout.memoryMap)
        return Dictionary(uniqueKeysWithValues: info.blobs.map { ($0.address.rawValue, $0.bytes) })
    }

    @Test("the start info's fields are at their places")
    func startInfo() throws {
        let initramfs = GuestRange(start: GuestAddress(0x700_0000), count: 12345)
        let info = try #require(
            try blobs(initramfs: initramfs, rsdp: GuestMemoryLayout.rsdp)[0x6000])
        #expect(info.count == 56)
        #expect(info.little(0) as UInt32 == 0x336e_c578)
        #expect(info.little(4) as UInt32 == 1)  // version
        #expect(info.little(8) as UInt32 == 0)  // flags
        #expect(info.little(12) as UInt32 == 1)  // modules
        #expect(info.little(16) as UInt64 == 0x6040)
        #expect(info.little(24) as UInt64 == 0x20000)  // command line
        #expect(info.little(32) as UInt64 == 0xa0000)  // RSDP
        #expect(info.little(40) as UInt64 == 0x7000)  // memory map
        #expect(info.little(48) as UInt32 == 4)
        #expect(info.little(52) as UInt32 == 0)
    }

    @Test("the module list has the initramfs and no command line")
    func module() throws {
        let initramfs = GuestRange(start: GuestAddress(0x700_0000), count: 12345)
        let module = try #require(try blobs(initramfs: initramfs, rsdp: nil)[0x6040])
        #expect(
            module == bytes(UInt64(0x700_0000)) + bytes(UInt64(12345))
                + [UInt8](repeating: 0, count: 16))
    }

    @Test("without initramfs and ACPI their addresses are zero")
    func bare() throws {
        let blobs = try blobs(initramfs: nil, rsdp: nil)
        let info = try #require(blobs[0x6000])
        #expect(blobs[0x6040] == nil)
        #expect(info.little(12) as UInt32 == 0)
        #expect(info.little(16) as UInt64 == 0)
        #expect(info.little(32) as UInt64 == 0)
    }

    @Test("the memory map has an entry of 24 bytes for each range")
    func memoryMap() throws {
        let map = try #require(try blobs(initramfs: nil, rsdp: nil)[0x7000])
        #expect(map.count == 4 * 24)
        #expect(map.little(24) as UInt64 == 0x10_0000)
        #expect(map.little(32) as UInt64 == 0xbff0_0000)
        #expect(map.little(40) as UInt32 == 1)
        #expect(map.little(48) as UInt64 == 0xe800_0000)
        #expect(map.little(64) as UInt32 == 2)
        #expect(map.little(72) as UInt64 == 0x1_0000_0000)
    }
}
