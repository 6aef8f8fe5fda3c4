import Testing
import VMMBase
import VMMHost
import VMMTestSupport

@testable import VMMNetwork

@Suite("OffloadHeader")
struct OffloadHeaderTests {
    private typealias Offloads = TapInterface.Offloads

    private static let all: Offloads = [
        .checksum, .tcp4, .tcp6, .congestion, .udp, .udpSegments4, .udpSegments6,
    ]

    /// Fields in the order of VirtIO 1.3, 5.1.6.
    private static func header(
        flags: UInt8 = 1, kind: UInt8 = 0, length: UInt16 = 54, segment: UInt16 = 1448,
        checksum: (start: UInt16, offset: UInt16) = (34, 16), buffers: UInt16 = 0
    ) -> [UInt8] {
        [flags, kind]
            + [length, segment, checksum.start, checksum.offset, buffers].flatMap {
                [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)]
            }
    }

    private static func verdict(
        _ header: [UInt8], _ frameByteCount: Int = 3000, _ offloads: TapInterface.Offloads = all
    ) -> OffloadHeader.Verdict {
        OffloadHeader([9, 9] + header, at: 2).verdict(
            frameByteCount: frameByteCount, accepting: offloads)
    }

    @Test("a finished frame is for everybody")
    func finished() {
        #expect(Self.verdict(NetworkFixture.header, 14, []) == .sound)
    }

    @Test(
        "each kind needs what the driver agreed to, all of it",
        arguments: [
            (0, [.checksum]), (1, [.checksum, .tcp4]), (4, [.checksum, .tcp6]),
            (0x81, [.checksum, .tcp4, .congestion]), (0x84, [.checksum, .tcp6, .congestion]),
            (3, [.checksum, .udp]), (5, [.checksum, .udpSegments4, .udpSegments6]),
        ] as [(UInt8, TapInterface.Offloads)])
    func kinds(kind: UInt8, needed: TapInterface.Offloads) {
        let header = Self.header(kind: kind)
        #expect(Self.verdict(header, 3000, needed) == .sound)
        #expect(Self.verdict(header, 3000, Self.all.subtracting(.checksum)) == .unwanted)
        #expect(Self.verdict(header, 3000, Self.all.subtracting(needed)) == .unwanted)
        for bit in 0..<7 as Range<UInt32> {
            let one = Offloads(rawValue: 1 << bit).intersection(needed)
            let expected: OffloadHeader.Verdict = one.isEmpty ? .sound : .unwanted
            #expect(Self.verdict(header, 3000, needed.subtracting(one)) == expected)
        }
    }

    @Test(
        "a kind that there is not is nothing",
        arguments: [2, 6, 7, 0x7f, 0x80, 0x82, 0x83, 0x85, 0xff] as [UInt8])
    func unknownKinds(kind: UInt8) {
        #expect(Self.verdict(Self.header(kind: kind)) == .malformed)
    }

    @Test(
        "a checksum lies behind the Ethernet header and inside the frame",
        arguments: [
            (14, 44, .sound), (13, 16, .malformed), (0, 0, .malformed), (58, 0, .sound),
            (58, 1, .malformed), (59, 0, .malformed), (0xffff, 0xffff, .malformed),
            (14, 0xffff, .malformed), (0xffff, 0, .malformed),
        ] as [(UInt16, UInt16, OffloadHeader.Verdict)])
    func checksums(start: UInt16, offset: UInt16, expected: OffloadHeader.Verdict) {
        let header = Self.header(checksum: (start, offset))
        #expect(Self.verdict(header, 60) == expected)
        // Without the flag nobody looks.
        #expect(Self.verdict(Self.header(flags: 0, checksum: (start, offset)), 60) == .sound)
    }

    @Test("segments have a length and a checksum, and headers that fit")
    func segments() {
        #expect(Self.verdict(Self.header(kind: 1, segment: 0)) == .malformed)
        #expect(Self.verdict(Self.header(flags: 0, kind: 1)) == .malformed)
        #expect(Self.verdict(Self.header(kind: 1, length: 3000)) == .sound)
        #expect(Self.verdict(Self.header(kind: 1, length: 3001)) == .malformed)
    }

    @Test("what goes to the guest says nothing that the peer has no say in")
    func cleans() {
        func cleaned(_ header: [UInt8]) -> [UInt8] {
            var bytes: [UInt8] = [7] + header + [7]
            OffloadHeader(bytes, at: 1).write(to: &bytes, at: 1)
            #expect(bytes.first == 7 && bytes.last == 7)
            return Array(bytes[1..<13])
        }
        let segments = Self.header(flags: 0xff, kind: 1, buffers: 0xffff)
        let whole = Self.header(flags: 0xff, buffers: 3)
        let finished = Self.header(flags: 0xfe, buffers: 3)
        #expect(cleaned(segments) == Self.header(flags: 1, kind: 1))
        #expect(cleaned(whole) == Self.header(length: 0, segment: 0))
        #expect(cleaned(finished) == NetworkFixture.header)
    }

    @Test("any bytes get a verdict, and what is sound is sound when it is clean")
    func random() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var generator = SeededGenerator(seed: seed)
        var wrong = 0
        for _ in 0..<20_000 {
            // Small numbers now and then, so that some make sense.
            let mask: UInt8 = .random(in: 0...1, using: &generator) == 0 ? 0xff : 0x35
            var bytes = (0..<12).map { _ in UInt8.random(in: 0...255, using: &generator) & mask }
            let count = Int.random(in: 14...FrameLength.most, using: &generator)
            let offloads = Offloads(rawValue: .random(in: 0...0x7f, using: &generator))
            let verdict = Self.verdict(bytes, count, offloads)
            OffloadHeader(bytes, at: 0).write(to: &bytes, at: 0)
            if verdict == .sound, Self.verdict(bytes, count, offloads) != .sound { wrong += 1 }
        }
        #expect(wrong == 0, "seed \(seed)")
    }
}
