import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMMachine

@Suite("CoreDumpLayout")
struct CoreDumpLayoutTests {
    private static let ranges = [(UInt64(0), UInt64(3 << 30)), (1 << 32, 1 << 20)].compactMap {
        GuestRange(start: GuestAddress($0), count: $1)
    }

    private static let vcpus = (UInt64(1)...2).map { number in
        var vcpu = KVMCPUState()
        vcpu.rax = 0x100 + number
        vcpu.rip = 0xffff_ffff_8100_0000 + number
        vcpu.extended[7] = 0x1500 + number
        vcpu.control[3] = 0x3000 + number
        vcpu.interruptTable.base = 0xfff0_0000 + number
        vcpu.kernelGSBase = 0x6500 + number
        vcpu.code.attributes = 0xa09b00
        return vcpu
    }

    private let layout = CoreDumpLayout(ranges, vcpus)

    private func number(_ offset: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 | UInt64(layout.head[offset + $1]) << UInt64(8 * $1) }
    }

    @Test("the header is that of an ELF core of x86-64")
    func header() {
        #expect(layout.head.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]))
        #expect(number(16, 2) == 4 && number(18, 2) == 62)
        #expect(number(32, 8) == 64 && number(54, 2) == 56 && number(56, 2) == 3)
    }

    @Test("each range of RAM is a segment by its physical address, at pages of the file")
    func segments() {
        for (index, range) in Self.ranges.enumerated() {
            let start = 64 + 56 * (1 + index)
            #expect(number(start, 4) == 1)
            #expect(number(start + 8, 8) == layout.segments[index].fileOffset)
            #expect(number(start + 8, 8) % 4096 == 0)
            #expect(number(start + 24, 8) == range.start.rawValue)
            #expect(number(start + 32, 8) == range.count && number(start + 40, 8) == range.count)
        }
        #expect(layout.segments[0].fileOffset >= layout.head.count)
        #expect(layout.byteCount == layout.segments[1].fileOffset + Self.ranges[1].count)
    }

    /// Notes begin after the header and three program headers; each has a head of 12 bytes and a
    /// name of 5, filled up to 8.
    private static let firstNote = 64 + 3 * 56

    @Test("a note for each vCPU has its registers where Linux puts a thread's")
    func threads() {
        for index in 0..<2 {
            let note = Self.firstNote + index * (20 + 336)
            #expect(number(note, 4) == 5 && number(note + 4, 4) == 336 && number(note + 8, 4) == 1)
            let status = note + 20
            let vcpu = Self.vcpus[index]
            #expect(number(status + 32, 4) == UInt64(index + 1))
            #expect(number(status + 112, 8) == vcpu.extended[7])
            #expect(number(status + 112 + 10 * 8, 8) == vcpu.rax)
            #expect(number(status + 112 + 16 * 8, 8) == vcpu.rip)
        }
    }

    @Test("a second note for each vCPU has what QEMU tells besides")
    func machine() {
        for index in 0..<2 {
            let note = Self.firstNote + 2 * (20 + 336) + index * (20 + 440)
            #expect(number(note, 4) == 5 && number(note + 4, 4) == 440 && number(note + 8, 4) == 0)
            let state = note + 20
            let vcpu = Self.vcpus[index]
            #expect(number(state, 4) == 1 && number(state + 4, 4) == 440)
            #expect(number(state + 8, 8) == vcpu.rax && number(state + 136, 8) == vcpu.rip)
            #expect(number(state + 152 + 8, 4) == 0xa09b00)
            // The tenth of ten segments of 24 bytes; its base stands last in it.
            #expect(number(state + 152 + 9 * 24 + 16, 8) == vcpu.interruptTable.base)
            #expect(number(state + 392 + 3 * 8, 8) == vcpu.control[3])
            #expect(number(state + 432, 8) == vcpu.kernelGSBase)
        }
        #expect(layout.head.count == Self.firstNote + 2 * (20 + 336) + 2 * (20 + 440))
    }

    @Test("a debugger's tools read it")
    func readable() throws {
        let directory = try TemporaryDirectory()
        let file = try FileDescriptor.open(directory.file("core"), [.writeOnly, .create])
        try file.resize(to: layout.byteCount)
        try file.write(layout.head.span, at: 0)
        let tool = URL(filePath: "/usr/bin/readelf")
        guard FileManager.default.isExecutableFile(atPath: tool.path) else { return }
        let process = Process()
        let output = Pipe()
        process.executableURL = tool
        process.arguments = ["-hln", directory.file("core")]
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(
            decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        #expect(!text.contains("arning") && !text.contains("rror"), "\(text)")
        #expect(text.contains("CORE (Core file)") && text.contains("NT_PRSTATUS"))
    }
}
