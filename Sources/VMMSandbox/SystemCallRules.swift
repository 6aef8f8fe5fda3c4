/// What of an argument a rule looks at, and which values it allows.
package struct ArgumentTest: Equatable, Sendable {
    /// How much of the argument the kernel reads: an `int`, or a whole register, whose upper half
    /// must then be zero.
    package enum Width: Sendable {
        case int, register
    }

    /// Which argument, from 0.
    let index: Int
    let width: Width
    /// The bits that count; the others may be anything.
    let mask: UInt32
    var values: [UInt32]

    /// Allows the values of `values` alone.
    package static func oneOf(
        _ values: [UInt32], at index: Int, _ width: Width = .int
    ) -> ArgumentTest {
        ArgumentTest(index: index, width: width, mask: .max, values: values)
    }

    func looksAtTheSame(as other: ArgumentTest) -> Bool {
        index == other.index && width == other.width && mask == other.mask
    }

    /// Allows what either of two tests of the same bits does.
    func adding(_ other: ArgumentTest) -> ArgumentTest {
        var sum = self
        sum.values += other.values.filter { !values.contains($0) }
        return sum
    }

    /// Allows no other bits than those of `bits`.
    package static func only(_ bits: UInt32, at index: Int) -> ArgumentTest {
        ArgumentTest(index: index, width: .register, mask: ~bits, values: [0])
    }
}

/// The system calls that a thread may make. Rules add up: what one of them allows is allowed.
package struct SystemCallRules: Sendable {
    struct Rule: Sendable {
        let call: SystemCall
        /// All of them must pass; none: with any arguments.
        var tests: [ArgumentTest] = []
    }

    /// In the order of the calls' numbers, one for each call.
    private(set) var rules: [Rule] = []

    package init() {}

    /// Allows `calls` with any arguments.
    package init(_ calls: SystemCall...) {
        for call in calls { allow(Rule(call: call)) }
    }

    /// Allows `call` if its arguments pass the tests.
    package init(_ call: SystemCall, _ test: ArgumentTest, _ others: ArgumentTest...) {
        allow(Rule(call: call, tests: [test] + others))
    }

    /// Allows the ioctl requests of `requests`.
    package init(ioctl requests: [UInt32]) {
        allow(Rule(call: .ioctl, tests: [.oneOf(requests, at: 1)]))
    }

    /// Allows what `other` allows, too.
    package mutating func add(_ other: SystemCallRules) {
        for rule in other.rules { allow(rule) }
    }

    package static func + (left: SystemCallRules, right: SystemCallRules) -> SystemCallRules {
        var sum = left
        sum.add(right)
        return sum
    }

    private mutating func allow(_ rule: Rule) {
        let place = rules.firstIndex { $0.call.rawValue >= rule.call.rawValue } ?? rules.endIndex
        guard place < rules.endIndex, rules[place].call == rule.call else {
            return rules.insert(rule, at: place)
        }
        let allowed = rules[place].tests
        guard !allowed.isEmpty, !rule.tests.isEmpty else {
            rules[place].tests = []
            return
        }
        precondition(
            allowed.count == rule.tests.count
                && zip(allowed, rule.tests).allSatisfy { $0.looksAtTheSame(as: $1) },
            "the tests of one call look at the same bits")
        rules[place].tests = zip(allowed, rule.tests).map { $0.adding($1) }
    }
}
