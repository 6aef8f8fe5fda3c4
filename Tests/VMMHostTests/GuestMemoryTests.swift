import Foundation
import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@Suite("GuestMemory")
struct GuestMemoryTests {
    private static let end = TestMemory.regionByteCount
    private static let second = TestMemory.second
    let memory: GuestMemory

    init() throws {
        memory = try TestMemory.make()
    }

    @Test("its size is that of all regions")
    func byteCount() {
        #expect(memory.byteCount == 2 * Self.end)
        #expect(memory.ranges.map(\.start.rawValue) == [0, Self.second])
    }

    /// Address, length, and whether it is RAM of one region.
    private static let ranges: [(UInt64, UInt64, Bool)] = [
        (0, 1, true), (0, end, true), (0, end + 1, false), (end - 1, 1, true),
        (end - 1, 2, false), (end, 1, false), (end, 0, false), (second - 1, 1, false),
        (second - 1, 2, false), (second, end, true), (second + end - 1, 1, true),
        (second + end, 1, false), (0, second + end, false), (.max, 1, false), (.max, .max, false),
        (0, .max, false), (1, .max, false), (second, .max, false), (.max - 7, 16, false),
    ]

    @Test("a range is RAM when one region holds all of it", arguments: ranges)
    func contains(address: UInt64, count: UInt64, expected: Bool) {
        #expect(memory.contains(GuestAddress(address), count: count) == expected)
    }

    @Test("bytes come out as they went in, up to a region's last one")
    func copies() {
        let address = GuestAddress(Self.second + Self.end - 3)
        #expect(memory.copyIn([1, 2, 3], at: address))
        #expect(memory.copyOut(address, count: 3) == [1, 2, 3])
        #expect(memory.copyOut(GuestAddress(0), count: 4) == [0, 0, 0, 0])
    }

    @Test("what does not fit one region is not copied, not even in part")
    func refusesCopies() {
        let address = GuestAddress(Self.end - 2)
        #expect(!memory.copyIn([1, 2, 3], at: address))
        #expect(memory.copyOut(address, count: 2) == [0, 0])
        #expect(memory.copyOut(address, count: 3) == nil)
        #expect(memory.copyOut(GuestAddress(0), count: -1) == nil)
        #expect(memory.copyOut(GuestAddress(.max), count: .max) == nil)
    }

    @Test("a pair is two little-endian words and lies in one region")
    func pair() {
        _ = memory.copyIn([0x78, 0x56, 0x34, 0x12], at: GuestAddress(Self.end - 16))
        let pair = memory.loadPair(at: GuestAddress(Self.end - 16))
        #expect(pair?.low == 0x1234_5678 && pair?.high == 0)
        #expect(memory.loadPair(at: GuestAddress(Self.end - 15)) == nil)
        #expect(memory.loadPair(at: GuestAddress(.max)) == nil)
    }

    @Test("a part of a file is loaded; a file that is too short, and a place outside, are errors")
    func loadsFiles() throws {
        let directory = try TemporaryDirectory()
        try Data([1, 2, 3, 4, 5]).write(to: URL(filePath: directory.file("kernel")))
        let file = try FileDescriptor.open(directory.file("kernel"), .readOnly)

        try memory.load(file, offset: 1, count: 3, at: GuestAddress(100))

        #expect(memory.copyOut(GuestAddress(99), count: 5) == [0, 2, 3, 4, 0])
        #expect(throws: HostError.self) {
            try memory.load(file, offset: 3, count: 3, at: GuestAddress(100))
        }
        #expect(throws: HostError.self) {
            try memory.load(file, offset: 0, count: 3, at: GuestAddress(Self.end - 2))
        }
        #expect(throws: HostError.self) {
            try memory.load(file, offset: .max, count: 3, at: GuestAddress(100))
        }
    }

    /// Offsets of the only bytes of a file that are not zero: around the parts that are looked at
    /// for zeros (64 KiB) and around huge pages, from where the file begins in memory.
    @Test(
        "zeros in a file are zeros in memory, and what lies between them is there",
        arguments: [
            [], [0], [65_535], [65_536], [131_071, 131_072], [(2 << 20) - 4097],
            [(2 << 20) - 4096, 6 << 20], [(8 << 20) - 1], [4 << 20, (4 << 20) + 70_000],
        ])
    func loadsZeros(places: [Int]) throws {
        let count = 8 << 20
        var bytes = [UInt8](repeating: 0, count: count)
        for place in places { bytes[place] = 0xA5 }
        let directory = try TemporaryDirectory()
        try Data(bytes).write(to: URL(filePath: directory.file("kernel")))
        let file = try FileDescriptor.open(directory.file("kernel"), .readOnly)
        let range = try #require(GuestRange(start: GuestAddress(0), count: UInt64(count) + 8192))
        let memory = try GuestMemory(ranges: [range])

        try memory.load(file, offset: 0, count: UInt64(count), at: GuestAddress(4096))

        let isSame = memory.copyOut(GuestAddress(4096), count: count) == bytes
        #expect(isSame)
    }

    // MARK: saving

    @Test("what is saved is what is there, and zeros are holes")
    func saves() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("saved")
        let file = try FileDescriptor.open(path, [.readWrite, .create])
        let memory = try GuestMemory(
            ranges: [try #require(GuestRange(start: GuestAddress(0), count: 5 << 20))],
            usesHugePages: false)
        // The last byte of a page, a run of pages over a 2 MiB border, and zeros that were written.
        #expect(memory.copyIn([7], at: GuestAddress(4095)))
        let run = [UInt8](repeating: 0x5a, count: 12288)
        #expect(memory.copyIn(run, at: GuestAddress((2 << 20) - 4096)))
        #expect(memory.copyIn([UInt8](repeating: 0, count: 8192), at: GuestAddress(3 << 20)))
        try file.resize(to: (5 << 20) + 4096)
        try memory.save(memory.ranges[0], to: file, at: 4096) { true }

        let saved = [UInt8](try Data(contentsOf: URL(filePath: path)))
        let expected =
            [UInt8](repeating: 0, count: 4096)
            + (try #require(memory.copyOut(GuestAddress(0), count: 5 << 20)))
        let isSame = saved == expected
        #expect(isSame)
        #expect(try file.metadata().allocatedByteCount < 1 << 20)
    }

    @Test("saving gives no memory to pages that nobody touched")
    func savesUntouched() throws {
        let directory = try TemporaryDirectory()
        let file = try FileDescriptor.open(directory.file("saved"), [.readWrite, .create])
        let memory = try GuestMemory(
            ranges: [try #require(GuestRange(start: GuestAddress(0), count: 256 << 20))])
        let before = try Self.pageTableKiB()
        try memory.save(memory.ranges[0], to: file, at: 0) { true }
        // To look at each page would take a page of tables for each 2 MiB: 512 KiB.
        #expect(try Self.pageTableKiB() < before + 256)
    }

    private static func pageTableKiB() throws -> Int {
        let text = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmPTE") } ?? ""
        return Int(line.split(separator: " ").dropFirst().first ?? "") ?? 0
    }

    @Test("a save ends when it is not wanted any more, or when the file takes no more")
    func savesNot() throws {
        let directory = try TemporaryDirectory()
        let file = try FileDescriptor.open(directory.file("saved"), [.readWrite, .create])
        #expect(throws: HostError.self) {
            try memory.save(memory.ranges[0], to: file, at: 0) { false }
        }
        #expect(memory.copyIn([1], at: GuestAddress(0)))
        let full = try FileDescriptor.open("/dev/full", .writeOnly)
        let error = #expect(throws: HostError.self) {
            try memory.save(memory.ranges[0], to: full, at: 0) { true }
        }
        #expect(error?.code == ENOSPC)
        let elsewhere = try #require(GuestRange(start: GuestAddress(Self.end), count: 4096))
        #expect(throws: HostError.self) { try memory.save(elsewhere, to: file, at: 0) { true } }
    }
}
