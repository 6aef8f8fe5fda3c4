import Testing

@testable import VMMSandbox

@Suite("Filter programs")
struct FilterProgramTests {
    private static let x86: UInt32 = 0xc000_003e
    private static let allow = FilterProgram.Verdict.allow.word
    private static let trap = FilterProgram.Verdict.trap.word

    private func decide(
        _ rules: SystemCallRules, _ call: UInt32, _ arguments: [UInt64] = [],
        architecture: UInt32 = x86
    ) -> UInt32? {
        let program = FilterProgram(rules, otherwise: .trap)
        return FilterInterpreter(program.code).decide(call, architecture, arguments)
    }

    @Test("what is in the list is allowed, and nothing else is")
    func list() {
        let calls: [SystemCall] = [.read, .write, .futex, .epoll_wait, .io_uring_enter]
        var rules = SystemCallRules()
        for call in calls { rules.add(SystemCallRules(call)) }
        let numbers = Set(calls.map(\.rawValue))
        // More than any kernel has.
        for call in UInt32(0)..<1000 where call != SystemCall.clone3.rawValue {
            #expect(decide(rules, call) == (numbers.contains(call) ? Self.allow : Self.trap))
        }
    }

    @Test("an empty list allows nothing")
    func empty() {
        for call in UInt32(0)..<435 { #expect(decide(SystemCallRules(), call) == Self.trap) }
    }

    @Test("clone3 does not exist, whatever the list says")
    func clone3() {
        for rules in [SystemCallRules(), SystemCallRules(.clone3, .clone)] {
            #expect(decide(rules, 435) == 0x0005_0026)  // ERRNO with ENOSYS
        }
    }

    @Test("another architecture's calls and those of x32 end the process")
    func architectures() {
        let rules = SystemCallRules(.read, .write)
        let end = FilterProgram.Verdict.endProcess.word
        #expect(decide(rules, 0, architecture: 0x4000_0003) == end)  // i386
        #expect(decide(rules, 0, architecture: 0xc000_00b7) == end)  // aarch64
        #expect(decide(rules, 0x4000_0000) == end)
        #expect(decide(rules, 0x4000_0001) == end)
        #expect(decide(rules, .max) == end)
    }

    @Test("an argument of 32 bits is one of some values, whatever its upper half is")
    func intArguments() {
        let rules = SystemCallRules(.ioctl, .oneOf([0xae80, 0x5401], at: 1))
        #expect(decide(rules, 16, [9, 0xae80]) == Self.allow)
        #expect(decide(rules, 16, [9, 0xffff_ffff_0000_5401]) == Self.allow)
        #expect(decide(rules, 16, [0xae80, 0x5412]) == Self.trap)
        #expect(decide(rules, 16, [0, 0]) == Self.trap)
    }

    @Test("of a register the upper half counts, too")
    func registerArguments() {
        let flags = SystemCallRules(.clone, .oneOf([0x3d_0f00], at: 0, .register))
        #expect(decide(flags, 56, [0x3d_0f00]) == Self.allow)
        #expect(decide(flags, 56, [0x1_003d_0f00]) == Self.trap)
        #expect(decide(flags, 56, [0x4111]) == Self.trap)
        let protection = SystemCallRules(.mmap, .only(3, at: 2))
        for bits in UInt64(0)..<4 { #expect(decide(protection, 9, [0, 0, bits]) == Self.allow) }
        for bits in [4, 7, 0x1_0000_0000, 0x100_0003] as [UInt64] {
            #expect(decide(protection, 9, [0, 0, bits]) == Self.trap)
        }
    }

    @Test("rules of one call add up, and one without a test outdoes all")
    func sums() {
        let ioctls = SystemCallRules(ioctl: [1, 2]) + SystemCallRules(ioctl: [2, 3])
        for request in UInt64(1)...3 { #expect(decide(ioctls, 16, [0, request]) == Self.allow) }
        #expect(decide(ioctls, 16, [0, 4]) == Self.trap)
        #expect(decide(ioctls + SystemCallRules(.ioctl), 16, [0, 4]) == Self.allow)
        #expect(decide(SystemCallRules(.ioctl) + ioctls, 16, [0, 4]) == Self.allow)
    }

    @Test("a list of every call, with long bodies between, is searched right")
    func farJumps() {
        var rules = SystemCallRules()
        for call in SystemCall.allCases {
            rules.add(SystemCallRules(call, .oneOf(Array(1...120), at: 0)))
        }
        for call in SystemCall.allCases where call != .clone3 {
            #expect(decide(rules, call.rawValue, [120]) == Self.allow)
            #expect(decide(rules, call.rawValue, [121]) == Self.trap)
        }
        #expect(decide(rules, 2) == Self.trap)
    }
}
