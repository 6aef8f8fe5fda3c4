import Testing
import VMMBase
import VMMNetwork
import VMMTestSupport

@Suite("LearningSwitch")
struct LearningSwitchTests {
    private static let broadcast: LearningSwitch.Address = 0xffff_ffff_ffff
    private static let alice: LearningSwitch.Address = 0x0200_0000_000a
    private static let bob: LearningSwitch.Address = 0x0200_0000_000b

    private var learning = LearningSwitch(portLimit: 8)

    @Test("unknown and group addresses go everywhere, known ones to their port")
    mutating func learns() {
        let first = learning.decide(
            destination: Self.bob, source: Self.alice, from: 1, now: 0)
        let answer = learning.decide(
            destination: Self.alice, source: Self.bob, from: 2, now: 1)
        let second = learning.decide(
            destination: Self.bob, source: Self.alice, from: 1, now: 2)
        let group = learning.decide(
            destination: Self.broadcast, source: Self.alice, from: 1, now: 3)
        #expect([first, answer, second, group] == [.flood, .forward(1), .forward(2), .flood])
    }

    @Test("a frame for its own port goes nowhere, nor one from a group or for neighbours only")
    mutating func drops() {
        _ = learning.decide(destination: Self.broadcast, source: Self.bob, from: 1, now: 0)
        let own = learning.decide(
            destination: Self.bob, source: Self.alice, from: 1, now: 0)
        let fromGroup = learning.decide(
            destination: Self.bob, source: Self.broadcast, from: 2, now: 0)
        let neighbours = learning.decide(
            destination: 0x0180_c200_000e, source: Self.alice, from: 1, now: 0)
        let noPort = learning.decide(
            destination: Self.bob, source: Self.alice, from: 8, now: 0)
        #expect([own, fromGroup, neighbours, noPort] == [.drop, .drop, .drop, .drop])
    }

    @Test("an address moves with its frames, grows old, and goes with its port")
    mutating func moves() {
        let age = LearningSwitch.ageNanoseconds
        func ask(_ now: UInt64) -> LearningSwitch.Decision {
            learning.decide(destination: Self.bob, source: Self.alice, from: 0, now: now)
        }
        _ = learning.decide(destination: Self.broadcast, source: Self.bob, from: 1, now: 0)
        _ = learning.decide(destination: Self.broadcast, source: Self.bob, from: 2, now: 5)
        #expect(ask(age + 4) == .forward(2))
        #expect(ask(age + 5) == .flood)
        _ = learning.decide(destination: Self.broadcast, source: Self.bob, from: 2, now: age + 6)
        #expect(ask(age + 7) == .forward(2))
        learning.remove(port: 2)
        #expect(ask(age + 8) == .flood)
    }

    @Test("a busy address stays young, to the second")
    mutating func staysYoung() {
        let second: UInt64 = 1_000_000_000
        for tenth in 0...20 as ClosedRange<UInt64> {
            _ = learning.decide(
                destination: Self.broadcast, source: Self.bob, from: 1, now: tenth * second / 10)
        }
        let decision = learning.decide(
            destination: Self.bob, source: Self.alice, from: 0,
            now: LearningSwitch.ageNanoseconds + second)
        #expect(decision == .forward(1))
    }

    @Test("a port that makes addresses up fills its own share, and old ones make way")
    mutating func flood() {
        _ = learning.decide(destination: Self.broadcast, source: Self.bob, from: 1, now: 0)
        for number in 0..<5000 as Range<UInt64> {
            _ = learning.decide(
                destination: Self.bob, source: 0x0400_0000_0000 + number, from: 0, now: number)
        }
        #expect(learning.addressCount == LearningSwitch.mostAddressesPerPort + 1)
        let later = LearningSwitch.ageNanoseconds * 2
        _ = learning.decide(destination: Self.bob, source: Self.alice, from: 0, now: later)
        let answer = learning.decide(
            destination: Self.alice, source: Self.bob, from: 1, now: later)
        #expect(answer == .forward(0))
        #expect(learning.addressCount == 2)
    }

    @Test("random frames: never back to their port, and always towards the last place seen")
    mutating func random() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var generator = SeededGenerator(seed: seed)
        var places: [UInt64: Int] = [:]
        var wrong = 0
        for step in 0..<20_000 as Range<UInt64> {
            let port = Int.random(in: 0..<8, using: &generator)
            if step % 1000 == 999 {
                learning.remove(port: port)
                places = places.filter { $0.value != port }
                continue
            }
            let source = UInt64.random(in: 0..<40, using: &generator)
            let destination = UInt64.random(in: 0..<40, using: &generator)
            places[source] = port
            let decision = learning.decide(
                destination: destination, source: source, from: port, now: step)
            let expected: LearningSwitch.Decision =
                places[destination].map {
                    $0 == port ? .drop : .forward($0)
                } ?? .flood
            if decision != expected { wrong += 1 }
        }
        #expect(wrong == 0, "seed \(seed)")
    }
}
