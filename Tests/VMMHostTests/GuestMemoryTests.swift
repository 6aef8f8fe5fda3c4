import Foundation
import Testing
import VMMBase
import VMMHost

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
}
