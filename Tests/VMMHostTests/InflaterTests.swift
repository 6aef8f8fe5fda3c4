import Testing
import VMMHost

@Suite("Inflater")
struct InflaterTests {
    private let content = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 / 7) }

    private func pack(_ isZstandard: Bool) -> [UInt8] {
        var packed = [UInt8](repeating: 0, count: 20_000)
        var span = packed.mutableSpan
        let count =
            isZstandard
            ? Inflater.deflateZstandard(content.span, into: &span)
            : Inflater.deflateRaw(content.span, into: &span)
        return Array(packed[..<(count ?? 0)])
    }

    private func unpack(_ packed: [UInt8], _ isZstandard: Bool, room: Int) -> [UInt8]? {
        var output = [UInt8](repeating: 0xee, count: room)
        var span = output.mutableSpan
        let count =
            isZstandard
            ? Inflater.inflateZstandard(packed.span, into: &span)
            : Inflater.inflateRaw(packed.span, into: &span)
        return count.map { Array(output[..<$0]) }
    }

    @Test("what was packed comes back, whatever follows it", arguments: [false, true])
    func roundTrip(isZstandard: Bool) {
        let packed = pack(isZstandard)

        #expect(packed.count < 2000)
        #expect(unpack(packed, isZstandard, room: 10_000) == content)
        #expect(unpack(packed + [1, 2, 3], isZstandard, room: 12_000) == content)
    }

    @Test("damaged, cut and oversized input gives nothing", arguments: [false, true])
    func damaged(isZstandard: Bool) {
        let packed = pack(isZstandard)

        #expect(unpack([], isZstandard, room: 100) == nil)
        #expect(unpack([0xff, 0xff, 0xff], isZstandard, room: 100) == nil)
        #expect(unpack(Array(packed.dropLast(20)), isZstandard, room: 10_000) == nil)
    }

    @Test("content that does not shrink does not fit into its own size", arguments: [false, true])
    func incompressible(isZstandard: Bool) {
        var packed: [UInt8] = [0, 0]
        var span = packed.mutableSpan
        let result =
            isZstandard
            ? Inflater.deflateZstandard(content.span, into: &span)
            : Inflater.deflateRaw(content.span, into: &span)
        #expect(result == nil)
    }
}
