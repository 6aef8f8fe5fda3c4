import VMMBase
import VMMFirmware

/// The input is a memory size, an initramfs's size and a kernel file, which is parsed and planned
/// with.
enum KernelTarget: FuzzTarget {
    static let name = "kernel"

    static let words: [[UInt8]] = [
        [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1], [4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0, 88, 101, 110, 0],
        [0x55, 0xaa, 0xeb], Array("HdrS".utf8), [0, 0, 0x10, 0], [0, 0, 0, 1],
    ]

    private struct Source: ImageSource {
        struct OutOfRange: Error {}

        let content: [UInt8]
        var byteCount: UInt64 { UInt64(content.count) }

        func read(at offset: UInt64, count: Int) throws -> [UInt8] {
            guard offset <= byteCount, UInt64(count) <= byteCount - offset else {
                throw OutOfRange()
            }
            return Array(content[Int(offset)..<Int(offset) + count])
        }
    }

    static func run(_ input: FuzzInput) {
        var input = input
        let pages = UInt64(input.next(UInt16.self))
        let initramfs = UInt64(input.next(UInt32.self))
        let source = Source(content: input.takeAll())
        guard let kernel = try? KernelImage.parse(source),
            let layout = try? GuestMemoryLayout(ramBytes: pages << 21, physicalAddressBits: 40)
        else { return }
        _ = try? BootPlanner(layout: layout, tables: [])
            .plan(kernel: kernel, initramfsBytes: initramfs, commandLine: "quiet")
    }

    // MARK: seeds

    static func seeds() -> [[UInt8]] {
        let sizes = FuzzInput.bytes(UInt16(256)) + FuzzInput.bytes(UInt32(1 << 20))
        return [sizes + elf, sizes + bzImage]
    }

    /// An ELF file with one segment to load and a PVH note.
    private static var elf: [UInt8] {
        var file = ByteBuilder([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
        file.appendZeros(9)
        file.append(UInt16(2))
        file.append(UInt16(62))
        file.appendZeros(12)
        file.append(UInt64(64))
        file.appendZeros(12)
        file.append(UInt16(64))
        file.append(UInt16(56))
        file.append(UInt16(2))
        file.appendZeros(6)
        for (type, offset, count) in [(1, 256, 64), (4, 192, 20)] as [(UInt32, UInt64, UInt64)] {
            file.append(type)
            file.append(UInt32(5))
            file.append(offset)
            file.append(UInt64(0))
            file.append(UInt64(0x100_0000))
            file.append(count)
            file.append(count)
            file.append(UInt64(4))
        }
        file.appendZeros(192 - file.count)
        for number in [4, 4, 18, 0x6e_6558, 0x100_0010] as [UInt32] { file.append(number) }
        file.appendZeros(320 - file.count)
        return file.bytes
    }

    /// A bzImage of protocol 2.15 with one setup sector and a page of kernel.
    private static var bzImage: [UInt8] {
        var file = [UInt8](repeating: 0, count: 1024 + 4096)
        func put(_ bytes: [UInt8], at offset: Int) {
            file.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        }
        put([1], at: 0x1f1)
        put(FuzzInput.bytes(UInt32(256)), at: 0x1f4)
        put([0x55, 0xaa, 0xeb, 0x6a], at: 0x1fe)
        put(Array("HdrS".utf8) + [0x0f, 2], at: 0x202)
        put([1], at: 0x211)
        put(FuzzInput.bytes(UInt32(0x10_0000)), at: 0x214)
        put(FuzzInput.bytes(UInt32(0x7fff_ffff)), at: 0x22c)
        put(FuzzInput.bytes(UInt32(2047)), at: 0x238)
        put(FuzzInput.bytes(UInt64(0x100_0000)), at: 0x258)
        put(FuzzInput.bytes(UInt32(0x200_0000)), at: 0x260)
        return file
    }
}
