import Testing

@testable import VMMDevices

@Suite("OutputRing")
struct OutputRingTests {
    @Test("bytes come out in order, whatever the pieces")
    func order() {
        var ring = OutputRing(limit: 100)
        ring.append([1, 2, 3])
        ring.append(4)
        #expect(ring.take(2) == [1, 2])
        ring.append([5, 6])
        #expect(ring.take(10) == [3, 4, 5, 6])
        #expect(ring.isEmpty)
    }

    @Test("beyond the limit the oldest go")
    func dropsOldest() {
        var ring = OutputRing(limit: 4)
        ring.append([1, 2, 3])
        ring.append([4, 5])
        ring.append(6)
        #expect(ring.take(10) == [3, 4, 5, 6])
    }

    @Test("a piece larger than the ring leaves its end")
    func largePiece() {
        var ring = OutputRing(limit: 4)
        ring.append(9)
        ring.append(Array(0..<10))
        #expect(ring.take(10) == [6, 7, 8, 9])
    }

    @Test("it equals a plain queue over many mixed steps, growing, wrapping and dropping")
    func againstModel() {
        var ring = OutputRing(limit: 10_000)
        var model: [UInt8] = []
        // A fixed pattern of steps: 257 and 4999 are prime, so that sizes and positions mix.
        for step in 0..<200 {
            let piece = (0..<(step * 257 % 4999)).map { UInt8(truncatingIfNeeded: $0 + step) }
            ring.append(piece)
            ring.append(UInt8(truncatingIfNeeded: step))
            model = Array((model + piece + [UInt8(truncatingIfNeeded: step)]).suffix(10_000))
            let taken = ring.take(step * 31 % 3001)
            #expect(taken == Array(model.prefix(step * 31 % 3001)))
            model.removeFirst(taken.count)
            #expect(ring.count == model.count)
        }
        #expect(ring.take(.max) == model)
    }
}
