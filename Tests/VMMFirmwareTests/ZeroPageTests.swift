import Testing
import VMMBase

@testable import VMMFirmware

@Suite("ZeroPage")
struct ZeroPageTests {
    private func page(
        _ file: [UInt8] = SampleBzImage.file, initramfs: GuestRange? = nil,
        rsdp: GuestAddress? = GuestMemoryLayout.rsdp
    ) throws -> [UInt8] {
        let kernel = try parseBzImage(file)
        let layout = try GuestMemoryLayout(ramBytes: 4 << 30, physicalAddressBits: 46)
        let page = ZeroPage(
            kernel: kernel, initramfs: initramfs, commandLineBytes: 77, rsdp: rsdp,
            memoryMap: layout.memoryMap)
        #expect(page.blob.address == GuestAddress(0x7000))
        return page.blob.bytes
    }

    @Test("the page is 4096 bytes and has the file's setup header")
    func header() throws {
        let page = try page()
        #expect(page.count == 4096)
        #expect(page.ascii(0x202..<0x206) == "HdrS")
        #expect(page.little(0x206) as UInt16 == 0x20f)
        #expect(page[0x1f1] == 1)
        #expect(page.little(0x258) as UInt64 == SampleBzImage.preferredAddress)
        #expect(page[SampleBzImage.headerEnd..<0x2d0].allSatisfy { $0 == 0 })
    }

    @Test("what the boot loader must write is written")
    func loaderFields() throws {
        let initramfs = GuestRange(start: GuestAddress(0x700_0000), count: 12345)
        let page = try page(initramfs: initramfs)
        #expect(page[0x210] == 0xff)  // type_of_loader
        #expect(page.little(0x214) as UInt32 == 0x10_0000)  // code32_start
        #expect(page.little(0x218) as UInt32 == 0x700_0000)  // ramdisk_image
        #expect(page.little(0x21c) as UInt32 == 12345)  // ramdisk_size
        #expect(page.little(0x228) as UInt32 == 0x20000)  // cmd_line_ptr
        #expect(page.little(0x238) as UInt32 == 77)  // cmdline_size
        #expect(page.little(0x70) as UInt64 == 0xa0000)  // acpi_rsdp_addr
        #expect(page[0x1ef] == 0)  // sentinel
    }

    @Test("a loader type in the file stays")
    func loaderType() throws {
        #expect(try page(SampleBzImage.file.replacing(at: 0x210, with: [0x81]))[0x210] == 0x81)
    }

    @Test("without initramfs and ACPI their fields are zero")
    func bare() throws {
        let page = try page(rsdp: nil)
        #expect(page.little(0x218) as UInt64 == 0)
        #expect(page.little(0x70) as UInt64 == 0)
    }

    @Test("the E820 table has an entry of 20 bytes for each range")
    func memoryMap() throws {
        let page = try page()
        #expect(page[0x1e8] == 4)
        #expect(page.little(0x2d0) as UInt64 == 0)
        #expect(page.little(0x2d8) as UInt64 == 0xa0000)
        #expect(page.little(0x2e0) as UInt32 == 1)
        #expect(page.little(0x2f8) as UInt64 == 0xe800_0000)
        #expect(page.little(0x308) as UInt32 == 2)
        #expect(page.little(0x30c) as UInt64 == 0x1_0000_0000)
        #expect(page.little(0x314) as UInt64 == 0x4000_0000)
    }
}
