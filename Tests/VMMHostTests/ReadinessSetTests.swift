import Foundation
import Testing
import VMMHost

@Suite("ReadinessSet")
struct ReadinessSetTests {
    private let set: ReadinessSet

    init() throws {
        set = try ReadinessSet()
    }

    private func collect() -> [ReadinessSet.Event] {
        (0..<set.collect()).map { set[$0] }
    }

    @Test("members are told by their tokens, each change once")
    func tokens() throws {
        let events = [try EventFD(), try EventFD()]
        try set.add(events[0].descriptor, token: 7)
        try set.add(events[1].descriptor, token: .max)
        let before = set.descriptor.isReady(.readable)
        events[1].signal()
        let during = set.descriptor.isReady(.readable)
        let told = collect()
        #expect(!before && during)
        #expect(told.map(\.token) == [.max] && told[0].isReadable && !told[0].isWritable)
        #expect(collect().isEmpty && !set.descriptor.isReady(.readable))
    }

    @Test("more members than a batch come with the next")
    func batches() throws {
        var events: [EventFD] = []
        for token in 0..<UInt64(ReadinessSet.batch + 10) {
            events.append(try EventFD())
            try set.add(events[events.count - 1].descriptor, token: token)
        }
        for event in events { event.signal() }
        #expect(collect().count == ReadinessSet.batch)
        #expect(collect().count == 10)
    }

    @Test("a member that is waited for anew is told at once, and a closed one no more")
    func changes() throws {
        var ends = try SocketPair.make()
        try set.add(ends[0], token: 1)
        #expect(collect().isEmpty)
        set.change(ends[0], token: 2, [.readable, .writable])
        let writable = collect()
        #expect(writable.map(\.token) == [2] && writable[0].isWritable)
        #expect(!writable[0].isHungUp)
        ends.removeLast()
        #expect(collect().map(\.isHungUp) == [true])
        set.change(ends[0], token: 3, .readable)
        ends.removeAll()
        #expect(collect().isEmpty)
    }
}

/// Two connected stream sockets.
enum SocketPair {
    static func make() throws -> [FileDescriptor] {
        var pair: [Int32] = [0, 0]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
        return pair.map { FileDescriptor(owning: $0) }
    }
}
