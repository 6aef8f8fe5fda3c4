/// A program of the kernel's packet filter language (seccomp(2)) that answers each system call
/// by a thread's rules. Calls are found by halving the numbers, which keeps what the kernel does
/// at the filter's installation, a walk for each number there is, short.
package struct FilterProgram: Equatable, Sendable {
    /// What the kernel does about a call.
    package struct Verdict: Equatable, Sendable {
        package let word: UInt32

        package static let allow = Verdict(word: 0x7fff_0000)
        package static let log = Verdict(word: 0x7ffc_0000)
        package static let trap = Verdict(word: 0x0003_0000)
        package static let endProcess = Verdict(word: 0x8000_0000)
        package static func fail(_ code: UInt16) -> Verdict {
            Verdict(word: 0x0005_0000 | UInt32(code))
        }
    }

    /// The program's instructions, each as the kernel has it in memory (`struct sock_filter`).
    package private(set) var code: [UInt64] = []

    /// A stretch of numbers that are answered alike, from `first` to the next one's.
    private struct Stretch {
        let first: UInt32
        let answer: Answer
    }

    private enum Answer: Equatable {
        case verdict(Verdict)
        /// The rule with this place in the list looks at an argument.
        case rule(Int)
    }

    /// AUDIT_ARCH_X86_64.
    private static let architecture: UInt32 = 0xc000_003e
    /// Numbers from here on are those of the x32 ABI, which we do not speak.
    private static let x32: UInt32 = 0x4000_0000
    private static let unknownCall: UInt16 = 38  // ENOSYS
    /// `struct seccomp_data`: the call's number, its architecture, its arguments from 16 on.
    private static let number: UInt32 = 0
    private static let architectureOffset: UInt32 = 4

    /// Calls that `rules` do not allow get `otherwise`. clone3, whose flags no filter sees, does
    /// not exist for such a thread, so that glibc takes clone.
    package init(_ rules: SystemCallRules, otherwise: Verdict) {
        code.reserveCapacity(512)
        load(Self.architectureOffset)
        jump(.equal, Self.architecture, ifTrue: 1, ifFalse: 0)
        answer(.endProcess)
        load(Self.number)
        jump(.atLeast, Self.x32, ifTrue: 0, ifFalse: 1)
        answer(.endProcess)
        let stretches = Self.stretches(rules, otherwise)
        search(stretches[...], rules, otherwise)
    }

    private static func stretches(
        _ rules: SystemCallRules, _ otherwise: Verdict
    ) -> [Stretch] {
        var answers = rules.rules.enumerated().map { place, rule in
            (
                call: rule.call.rawValue,
                answer: rule.tests.isEmpty ? Answer.verdict(.allow) : .rule(place)
            )
        }
        answers.removeAll { $0.call == SystemCall.clone3.rawValue }
        let clone3 = answers.firstIndex { $0.call > SystemCall.clone3.rawValue }
        answers.insert(
            (SystemCall.clone3.rawValue, .verdict(.fail(unknownCall))),
            at: clone3 ?? answers.endIndex)
        var stretches = [Stretch(first: 0, answer: .verdict(otherwise))]
        func begin(_ first: UInt32, _ answer: Answer) {
            if stretches.last?.first == first { stretches.removeLast() }
            if stretches.last?.answer != answer {
                stretches.append(Stretch(first: first, answer: answer))
            }
        }
        for (call, answer) in answers {
            begin(call, answer)
            begin(call + 1, .verdict(otherwise))
        }
        return stretches
    }

    /// Goes on to the stretch that the number lies in.
    private mutating func search(
        _ stretches: ArraySlice<Stretch>, _ rules: SystemCallRules, _ otherwise: Verdict
    ) {
        guard stretches.count > 1 else {
            switch stretches.first?.answer {
            case .rule(let place):
                for test in rules.rules[place].tests { check(test, otherwise) }
                answer(.allow)
            case .verdict(let verdict): answer(verdict)
            case nil: break
            }
            return
        }
        let middle = stretches.startIndex + stretches.count / 2
        let branch = code.count
        // A conditional jump reaches 255 instructions; this one any number.
        jump(.atLeast, stretches[middle].first, ifTrue: 0, ifFalse: 1)
        code.append(0)
        search(stretches[..<middle], rules, otherwise)
        let distance = UInt32(code.count - branch - 2)
        if let near = UInt8(exactly: distance) {
            code.remove(at: branch + 1)
            code[branch] = Self.instruction(
                .atLeast, stretches[middle].first, ifTrue: near, ifFalse: 0)
        } else {
            code[branch + 1] = Self.instruction(0x05, distance)
        }
        search(stretches[middle...], rules, otherwise)
    }

    /// Looks at an argument, and goes on behind if it passes; the number is not needed any more.
    private mutating func check(_ test: ArgumentTest, _ otherwise: Verdict) {
        let low = 16 + 8 * UInt32(test.index)
        // The way to the last instruction, which is refusal.
        var left = test.values.count + (test.mask == .max ? 1 : 2)
        if test.width == .register {
            load(low + 4)
            jump(.equal, 0, ifTrue: 0, ifFalse: UInt8(left))
        }
        load(low)
        if test.mask != .max { code.append(Self.instruction(0x54, test.mask)) }
        left = test.values.count
        for value in test.values {
            jump(.equal, value, ifTrue: UInt8(left), ifFalse: 0)
            left -= 1
        }
        answer(otherwise)
    }

    // MARK: instructions

    private enum Condition: UInt64 {
        case equal = 0x15
        case atLeast = 0x35
    }

    private static func instruction(_ operation: UInt64, _ value: UInt32) -> UInt64 {
        operation | UInt64(value) << 32
    }

    private static func instruction(
        _ condition: Condition, _ value: UInt32, ifTrue: UInt8, ifFalse: UInt8
    ) -> UInt64 {
        condition.rawValue | UInt64(ifTrue) << 16 | UInt64(ifFalse) << 24 | UInt64(value) << 32
    }

    private mutating func load(_ offset: UInt32) {
        code.append(Self.instruction(0x20, offset))
    }

    private mutating func jump(
        _ condition: Condition, _ value: UInt32, ifTrue: UInt8, ifFalse: UInt8
    ) {
        code.append(Self.instruction(condition, value, ifTrue: ifTrue, ifFalse: ifFalse))
    }

    private mutating func answer(_ verdict: Verdict) {
        code.append(Self.instruction(0x06, verdict.word))
    }
}
