import Testing
import VMMHost
import VMMStorage

@Suite("FaultyFile")
struct FaultyFileTests {
    private let memory = MemoryFile([UInt8](repeating: 1, count: 4096))

    private func file(_ rule: FaultRule) -> FaultyFile {
        FaultyFile(memory, rules: [rule], seed: 3)
    }

    @Test("a rule counts, and then lets go")
    func counts() throws {
        var rule = FaultRule([.write], .fail(code: 5))
        (rule.skip, rule.limit) = (1, 1)
        let file = file(rule)

        try file.write([2], at: 0)
        #expect(throws: HostError.self) { try file.write([3], at: 0) }
        try file.write([4], at: 1)

        #expect(memory.bytes[..<3] == [2, 4, 1])
        #expect(file.changeCount == 3)
    }

    @Test("a rule keeps to its bytes and operations")
    func ranges() throws {
        var rule = FaultRule([.write], .fail(code: 5))
        rule.range = 1000..<1001
        let file = file(rule)

        try file.write([UInt8](repeating: 2, count: 1000), at: 0)
        try file.synchronize()
        #expect(throws: HostError.self) { try file.write([2, 2], at: 999) }
    }

    @Test("a torn write ends with a sector, a dropped one does nothing")
    func tears() throws {
        let torn = file(FaultRule([.write], .tear(code: 5)))
        #expect(throws: HostError.self) {
            try torn.write([UInt8](repeating: 2, count: 4096), at: 0)
        }
        let count = memory.bytes.prefix { $0 == 2 }.count
        #expect(count % 512 == 0 && count < 4096)

        try file(FaultRule([.write], .drop)).write([9], at: 4000)
        #expect(memory.bytes[4000] == 1)
    }

    @Test("a delayed request waits as long as it is told to")
    func delays() throws {
        var waited: [UInt64] = []
        let file = FaultyFile(
            memory, rules: [FaultRule([.synchronize], .delay(nanoseconds: 77))], seed: 1
        ) { waited.append($0) }
        try file.synchronize()
        #expect(waited == [77])
    }
}

@Suite("VolatileFile")
struct VolatileFileTests {
    @Test("a power cut keeps what was synchronized, and of the rest whole sectors of some age")
    func cuts() throws {
        for seed in 1...50 as ClosedRange<UInt64> {
            let memory = MemoryFile([UInt8](repeating: 1, count: 2048))
            let file = try VolatileFile(memory)
            try file.write([UInt8](repeating: 2, count: 512), at: 0)
            try file.synchronize()
            try file.write([UInt8](repeating: 3, count: 1024), at: 512)
            try file.write([UInt8](repeating: 4, count: 1024), at: 1024)

            try file.cut(seed: seed)

            #expect(memory.bytes[..<512].allSatisfy { $0 == 2 })
            let ages = [[1, 3], [1, 3, 4], [1, 4]] as [[UInt8]]
            for (sector, allowed) in ages.enumerated() {
                let bytes = Set(memory.bytes[(sector + 1) * 512..<(sector + 2) * 512])
                #expect(bytes.count == 1 && bytes.isSubset(of: allowed))
            }
        }
    }

    @Test("what is not synchronized is read all the same")
    func reads() throws {
        let file = try VolatileFile(MemoryFile([UInt8](repeating: 1, count: 1024)))
        try file.write([5, 6], at: 511)
        try file.writeZeros(at: 1020, count: 100, mayUnmap: true)
        #expect(try file.bytes(at: 510, count: 4) == [1, 5, 6, 1])
        #expect(try file.bytes(at: 1019, count: 5) == [1, 0, 0, 0, 0])
    }
}
