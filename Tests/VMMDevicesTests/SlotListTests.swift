import Testing
import VMMBase
import VMMTestSupport

@testable import VMMDevices

@Suite("SlotList")
struct SlotListTests {
    private static func drain(_ list: inout SlotList) -> [Int] {
        var slots: [Int] = []
        while let slot = list.first {
            slots.append(slot)
            list.remove(slot)
        }
        return slots
    }

    @Test("slots leave in the order of their coming, and count once")
    func order() {
        var list = SlotList()
        for slot in [5, 0, 9, 5, 0, 2] { list.append(slot) }
        #expect(Self.drain(&list) == [5, 0, 9, 2])
    }

    @Test("a slot is taken out from anywhere", arguments: [5, 0, 9, 2])
    func removal(slot: Int) {
        var list = SlotList()
        for other in [5, 0, 9, 2] { list.append(other) }
        list.remove(slot)
        list.remove(slot)
        list.remove(100)
        #expect(!list.contains(slot))
        #expect(Self.drain(&list) == [5, 0, 9, 2].filter { $0 != slot })
    }

    @Test("at random it is what an array would be", arguments: [1, 2, 3])
    func random(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var list = SlotList()
        var model: [Int] = []
        for _ in 0..<2000 {
            let slot = Int.random(in: 0..<20, using: &random)
            if Bool.random(using: &random) {
                list.append(slot)
                if !model.contains(slot) { model.append(slot) }
            } else {
                list.remove(slot)
                model.removeAll { $0 == slot }
            }
            #expect(list.first == model.first, "seed \(seed)")
        }
        #expect(Self.drain(&list) == model, "seed \(seed)")
    }
}
